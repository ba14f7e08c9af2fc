r"""Numbers of 8, 4 or 2 bits, unbiased: QSGD (arXiv 1610.02132) per block of values.

    q = floor(L x / s + u),  u uniform in [0, 1),      E[s q / L] = x

s is the largest magnitude of a block of `BUCKET` numbers, L = 127, 7 or 1 the levels on each side
of 0. Rounding up or down at random makes every number right on average, and its variance at most
(s / L)^2 / 4. With 2 bits that is TernGrad (arXiv 1705.07878).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from fedagent.arrays import NDArray
from fedagent.wire.codec import Bytes, Codec, Draws, UnencodableError, require_sound

BUCKET = 256
"""Numbers that share a scale of four bytes."""

_LARGEST = np.float32(np.finfo(np.float32).max)
_SMALLEST = 1e-30  # what is less counts as 0: L / s must not overflow


@dataclass(frozen=True)
class Quantised(Codec):
    """Every number rounded at random to one of 2 L + 1 levels.

    Parameters
    ----------
    bits : of a number: 8, 4 or 2.
    """

    bits: Literal[8, 4, 2] = 8

    @property
    def is_contraction(self) -> bool:  # type: ignore[override]
        """Whether its error is less than its numbers: of 2 bits it is up to 8 times as much."""
        return self.bits > 2

    @property
    def levels(self) -> int:
        """L, the levels on each side of 0."""
        return int(2 ** (self.bits - 1) - 1)

    def num_bytes(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Return those of the scales and of the levels; the last block is filled up."""
        buckets = -(-math.prod(shape) // BUCKET)
        return buckets * (4 + BUCKET * self.bits // 8)

    def encode(self, values: NDArray, shape: tuple[int, ...], draws: Draws) -> list[Any]:
        """Round them at random."""
        rows = _in_rows(values)
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        if not (largest <= _LARGEST).all():  # which NaN is not
            raise UnencodableError("There are NaN, or numbers beyond the range of float32.")
        scales = largest.astype(np.float32)
        scales = np.where(scales < largest, np.nextafter(scales, _LARGEST), scales)
        scales[largest < _SMALLEST] = 0
        factors = self.levels / np.where(scales > 0, scales, np.inf).astype(values.dtype)
        levels = rows * factors[:, None]
        noise = draws.uniform(levels.size).reshape(levels.shape)
        noise += np.float32(self.levels)
        levels += noise
        np.minimum(levels, 2 * self.levels, out=levels)  # x = s and u = 1 - 2^-17, rounded up
        return [scales.astype("<f4").data.cast("B"), self._join(levels.astype(np.uint8)).data]

    def decode(self, data: Bytes, shape: tuple[int, ...], draws: Draws, out: NDArray) -> None:
        """Return them to their scales."""
        size = math.prod(shape)
        buckets = -(-size // BUCKET)
        scales = data[: 4 * buckets].view("<f4").astype(np.float32)
        is_sound = bool(np.isfinite(scales).all() and (scales >= 0).all())
        require_sound(is_sound, "a scale is negative or not finite")
        levels = self._split(data[4 * buckets :])
        require_sound(
            levels.max(initial=0) <= 2 * self.levels, "a level is beyond the last there is"
        )
        numbers = levels.reshape(buckets, BUCKET).astype(out.dtype)
        numbers -= self.levels
        numbers *= (scales.astype(out.dtype) / self.levels)[:, None]
        out[:] = numbers.reshape(-1)[:size]

    def _join(self, levels: Bytes) -> Bytes:
        """Put 1, 2 or 4 levels into a byte, the first of them lowest."""
        flat = levels.reshape(-1)
        if self.bits == 8:
            return flat
        if self.bits == 4:
            pairs = flat.view("<u2")
            joined = pairs | (pairs >> 4)
        else:
            fours = flat.view("<u4")
            joined = fours | (fours >> 6) | (fours >> 12) | (fours >> 18)
        return cast(Bytes, joined.astype(np.uint8))

    def _split(self, data: Bytes) -> Bytes:
        if self.bits == 8:
            return data
        if self.bits == 4:
            pairs = data.astype("<u2")
            split = (pairs | (pairs << 4)) & np.uint16(0x0F0F)
        else:
            fours = data.astype("<u4")
            split = fours | (fours << 6) | (fours << 12) | (fours << 18)
            split &= np.uint32(0x03030303)
        return cast(Bytes, split.view(np.uint8))


def _in_rows(values: NDArray) -> NDArray:
    """Return (n,) numbers as rows of a block each, the last one filled up with zeros."""
    missing = -len(values) % BUCKET
    padded = np.pad(values, (0, missing)) if missing else values
    return padded.reshape(-1, BUCKET)
