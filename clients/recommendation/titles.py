"""What the items are called, where the data set says it, and what one user may like."""

from pathlib import Path

import numpy as np
import torch

from clients.recommendation.data import PACKAGED, columns, packaged
from clients.recommendation.metrics import TOP

_FILES = {
    "ml-100k": ("u.item", "|", 0),
    "ml-1m": ("movies.dat", "::", 0),
    "ml-latest-small": ("movies.csv", ",", 1),
}
"""Data set -> its file of movies, what separates its columns, and its lines of headings."""

_LISTED = 10


def titles(name: str, root: str) -> tuple[str, ...] | None:
    """Return the items' titles in the order of their numbers; None where no file says them.

    Parameters as `clients.recommendation.data.load` has; an item without a title is "?".
    """
    if name == PACKAGED:
        table = packaged()
        known = dict(zip(table["movieId"], table["title"].fillna("?"), strict=True))
    else:
        file, separator, headings = _FILES[name]
        path = Path(root) / name / file
        if not path.is_file():
            return None
        lines = path.read_text(encoding="utf-8" if separator == "," else "latin-1").splitlines()
        known = {
            int(line.split(separator)[0]): _second(line, separator) for line in lines[headings:]
        }
    return tuple(str(known.get(item, "?")) for item in np.unique(columns(name, root)[1]).tolist())


def _second(line: str, separator: str) -> str:
    """Return the second column; a comma may stand in a quoted title."""
    rest = line.split(separator, 1)[1]
    return rest[1:].split('"', 1)[0] if rest.startswith('"') else rest.split(separator, 1)[0]


def recommended(names: tuple[str, ...], scores: torch.Tensor, rated: torch.Tensor) -> str:
    """Return what a user rated last and the items with the best scores, as lines of a text.

    Parameters
    ----------
    names : titles of the I items.
    scores : (I,) of the user.
    rated : (n,) items that the user has rated, in order of time; they are not recommended.
    """
    left_out = scores.index_fill(0, rated, -torch.inf)
    best = left_out.topk(min(TOP, len(names) - len(rated.unique()))).indices
    return "\n".join(
        [
            "Rated last:",
            *(f"  {names[item]}" for item in rated[-_LISTED:].tolist()),
            "",
            "Recommended:",
            *(f"  {rank:2}. {names[item]}" for rank, item in enumerate(best.tolist(), 1)),
        ]
    )
