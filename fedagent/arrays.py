"""One named array of a model: its form, and what happens to it when updates come in.

Numbers with a fraction are averaged. All else is carried: passed on by one of three policies.

========== =====================================================================================
`count`    Counters. The element-wise maximum, of replies that counted up since their dispatch.
           Booleans are flags: they may be set, and never cleared again.
`newest`   Pointers, observers, tables. The reply of the newest base version is taken over.
`keep`     Constants. What clients send under that name changes nothing.
========== =====================================================================================
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from fedagent.errors import require

NDArray = npt.NDArray[Any]

Carry = Literal["count", "newest", "keep"]

_STATISTICS = ("running_mean", "running_var")  # of torch.nn.BatchNorm*, InstanceNorm*


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One named array of the model: its shape and NumPy dtype (``"float32"``).

    Attributes
    ----------
    carry : the policy of an array that is carried; None for one that is averaged.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    carry: Carry | None = None

    @classmethod
    def of(cls, name: str, array: NDArray, carried: Mapping[str, Carry]) -> "ArraySpec":
        """Describe `array`, whose policy is that of the first pattern in `carried` that fits.

        Without one, integers are counted and booleans kept. Floating arrays are averaged, but for
        those that hold no finite number: an observer that has seen nothing yet is taken over.

        Raises
        ------
        ConfigurationError
            If the array holds no numbers.
        """
        kind = array.dtype.kind
        require(
            kind in "fciub",
            f"Array {name!r} has dtype {array.dtype}, which cannot be averaged or carried; "
            "send it outside the ArrayRecord.",
        )
        default: Carry | None = {"b": "keep", "i": "count", "u": "count"}.get(kind)  # type: ignore[assignment]
        if default is None and array.size and not np.isfinite(reals(array)).any():
            default = "newest"
        own = next((c for pattern, c in carried.items() if fnmatchcase(name, pattern)), default)
        require(
            own != "count" or kind in "iub",
            f"Array {name!r} has dtype {array.dtype}, and only integers and booleans count: "
            f"carry it by 'newest' or 'keep', or leave it out of `carried` to average it.",
        )
        return cls(name, array.shape, str(array.dtype), own)

    def __str__(self) -> str:
        return f"{self.name!r} is {self.dtype}{list(self.shape)}"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_averaged(self) -> bool:
        """Whether the array is part of the vector that rules move."""
        return self.carry is None

    @property
    def is_statistic(self) -> bool:
        """Whether it is the running mean or variance of a normalisation, by its usual names.

        It is averaged like a parameter, but is none: an optimiser's step has no meaning for it.
        """
        return self.name.rpartition(".")[2] in _STATISTICS

    @property
    def real_dtype(self) -> np.dtype[Any]:
        """The dtype of its real numbers, of which a complex one is two."""
        return np.empty(0, self.dtype).real.dtype

    @property
    def num_reals(self) -> int:
        """Real numbers in the array."""
        return self.size * (np.dtype(self.dtype).itemsize // self.real_dtype.itemsize)


@dataclass(frozen=True)
class Fixed:
    """Numbers of an averaged array that are not finite, such as the -inf of a causal mask.

    No mean and no step makes sense of them, so they are no part of what is trained: in vectors they
    are 0, and whatever is published has them back.

    Attributes
    ----------
    positions : which of the array's real numbers, ascending.
    values : what they are, in the array's dtype.
    """

    positions: NDArray
    values: NDArray

    @classmethod
    def of(cls, array: NDArray) -> "Fixed | None":
        """Find them; None if there are none."""
        flat = reals(array)
        positions = np.flatnonzero(~np.isfinite(flat))
        return cls(positions, flat[positions]) if len(positions) else None


def reals(array: NDArray) -> NDArray:
    """Return the array's real numbers, one after the other: a view where possible."""
    flat = array.reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def fits(vector: torch.Tensor, dtype: np.dtype[Any]) -> bool:
    """Return whether all of a vector is finite, and stays so in `dtype`.

    One pass, and no cast of more than the extremes: a cast keeps the order.
    """
    low, high = vector.aminmax()
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.array([low, high]).astype(dtype)).all())


def require_matches(carried: Mapping[str, Carry], arrays: Mapping[str, NDArray]) -> None:
    """Raise ConfigurationError if a pattern in `carried` fits no array."""
    for pattern in carried:
        require(
            any(fnmatchcase(name, pattern) for name in arrays),
            f"carried={{{pattern!r}: ...}} fits no array of the model, which has "
            f"{', '.join(map(repr, list(arrays)[:8]))}{', ...' if len(arrays) > 8 else ''}.",
        )
