"""A few numbers of every block, and where they lie: the largest ones, or some at random.

Both are contractions, E|x - C(x)|^2 <= (1 - k/n) |x|^2, and biased: what they leave out must join
the node's next update (Stich et al., arXiv 1809.07599), as `fedagent.client.mods.codec_mod` does.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fedagent.arrays import NDArray
from fedagent.errors import require
from fedagent.wire import positions
from fedagent.wire.codec import Bytes, Codec, Draws, require_finite
from fedagent.wire.packed import Packed
from fedagent.wire.positions import Positions


@dataclass(frozen=True)
class TopK(Codec):
    """The largest numbers of every block; how they themselves are encoded is another codec's.

    Parameters
    ----------
    share : k / n, in (0, 1]; of every block at least one number.
    values : for the numbers that travel.
    """

    share: float = 0.05
    values: Codec = field(default_factory=Packed)
    NAME: ClassVar[str] = "topk"

    needs_feedback = True

    @property
    def is_contraction(self) -> bool:  # type: ignore[override]
        """Whether that of its values is one."""
        return self.values.is_contraction

    def __post_init__(self) -> None:
        require(
            0 < self.share <= 1,
            f"{self.NAME}:{self.share} must be a share in (0, 1] of the numbers, such as 0.05.",
        )

    def num_bytes(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Return those of the positions and of the numbers there."""
        size = math.prod(shape)
        count = self._count(size)
        return positions.num_bytes(count, size) + self.values.num_bytes((count,), dtype)

    def encode(self, values: NDArray, shape: tuple[int, ...], draws: Draws) -> list[Any]:
        """Choose the largest; of equal ones, whichever."""
        require_finite(values)
        count = self._count(len(values))
        largest = np.argpartition(np.abs(values), len(values) - count)[len(values) - count :]
        chosen = np.sort(largest)
        told = [part.data for part in positions.encode(chosen, len(values))]
        return told + self.values.encode(values[chosen], (count,), draws)

    def decode(self, data: Bytes, shape: tuple[int, ...], draws: Draws, out: NDArray) -> None:
        """Put them where they belong, and 0 everywhere else."""
        size = math.prod(shape)
        count = self._count(size)
        begin = positions.num_bytes(count, size)
        chosen = positions.decode(data[:begin], count, size)
        numbers = np.empty(count, out.dtype)
        self.values.decode(data[begin:], (count,), draws, numbers)
        out[:] = 0
        out[chosen] = numbers

    def _count(self, size: int) -> int:
        return min(size, max(1, round(self.share * size)))


@dataclass(frozen=True)
class RandomK(TopK):
    """One number of each of k parts of a block, at random: both ends know which, by the seed."""

    NAME: ClassVar[str] = "randk"

    def num_bytes(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Return those of the numbers."""
        return self.values.num_bytes((self._count(math.prod(shape)),), dtype)

    def encode(self, values: NDArray, shape: tuple[int, ...], draws: Draws) -> list[Any]:
        """Choose at random."""
        require_finite(values)
        chosen = self._chosen(len(values), draws)
        return self.values.encode(values[chosen], (len(chosen),), draws)

    def decode(self, data: Bytes, shape: tuple[int, ...], draws: Draws, out: NDArray) -> None:
        """Put them where they belong, and 0 everywhere else."""
        chosen = self._chosen(len(out), draws)
        numbers = np.empty(len(chosen), out.dtype)
        self.values.decode(data, (len(chosen),), draws, numbers)
        out[:] = 0
        out[chosen] = numbers

    def _chosen(self, size: int, draws: Draws) -> Positions:
        count = self._count(size)
        bounds = np.arange(count + 1) * size // count
        widths = np.diff(bounds).astype(np.uint64)
        return bounds[:-1] + (draws.words(count) % widths).astype(np.int64)
