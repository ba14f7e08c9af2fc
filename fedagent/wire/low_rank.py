"""Matrices as products of two narrow ones: PowerSGD (arXiv 1905.13727), from a fresh start.

    P = orthogonalised M Q0,    Q = M^T P,    M ~ P Q^T        M (m, n), P (m, r), Q (n, r)

Two power iterations from a random Q0 stand for PowerSGD's warm one, which would be state of its own
at every node. What the product leaves out joins the node's next update, as in the paper.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedagent.arrays import NDArray
from fedagent.errors import require
from fedagent.model import ModelSpec
from fedagent.wire.codec import Bytes, Codec, Draws, Segment, in_blocks, require_finite
from fedagent.wire.packed import Packed


@dataclass(frozen=True)
class LowRank(Codec):
    """Every array of two dimensions or more as P and Q; all else by another codec.

    Parameters
    ----------
    rank : r, >= 1. Arrays for which it saves nothing count as all else.
    values : for the numbers of P, Q and all else.
    """

    rank: int = 4
    values: Codec = field(default_factory=Packed)

    needs_feedback = True
    is_exact = False  # a product's last bits are its machine's

    @property
    def is_contraction(self) -> bool:  # type: ignore[override]
        """Whether that of its values is one."""
        return self.values.is_contraction

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"powersgd:{self.rank} must be a rank of at least 1.")

    def segments(self, spec: ModelSpec) -> Iterator[Segment]:
        """Yield matrices whole, and what lies between them in blocks."""
        begin = 0
        for array in spec.arrays:
            if not array.is_averaged or array.real_dtype != array.dtype or len(array.shape) < 2:
                continue
            shape = array.shape[0], math.prod(array.shape[1:])
            if self.rank * sum(shape) < math.prod(shape):
                place = spec.offsets[array.name]
                yield from in_blocks(begin, place.start)
                yield Segment(place, shape)
                begin = place.stop
        yield from in_blocks(begin, spec.num_parameters)

    def num_bytes(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Return those of P and Q."""
        parts = [shape] if len(shape) == 1 else [(self.rank * side,) for side in shape]
        return sum(self.values.num_bytes(part, dtype) for part in parts)

    def encode(self, values: NDArray, shape: tuple[int, ...], draws: Draws) -> list[Any]:
        """Return P and Q."""
        require_finite(values)
        if len(shape) == 1:
            return self.values.encode(values, shape, draws)
        matrix = values.reshape(shape)
        right = _signs(draws, (shape[1], self.rank)).astype(values.dtype)
        for _ in range(2):
            left = np.linalg.qr(matrix @ right)[0]
            right = matrix.T @ left
        factors = [np.ascontiguousarray(left).reshape(-1), np.ascontiguousarray(right).reshape(-1)]
        encoded = [self.values.encode(part, (part.size,), draws) for part in factors]
        return [part for parts in encoded for part in parts]

    def decode(self, data: Bytes, shape: tuple[int, ...], draws: Draws, out: NDArray) -> None:
        """Return P Q^T."""
        if len(shape) == 1:
            self.values.decode(data, shape, draws, out)
            return
        factors, begin = [], 0
        for side in shape:
            part = np.empty(self.rank * side, out.dtype)
            end = begin + self.values.num_bytes(part.shape, out.dtype)
            self.values.decode(data[begin:end], part.shape, draws, part)
            factors.append(part.reshape(side, self.rank))
            begin = end
        left, right = factors
        with np.errstate(all="ignore"):  # of a liar's numbers; the gate looks at what comes out
            np.matmul(left, right.T, out=out.reshape(shape))


def _signs(draws: Draws, shape: tuple[int, ...]) -> NDArray:
    """Return random signs."""
    size = math.prod(shape)
    bits = np.unpackbits(draws.words(-(-size // 64)).view(np.uint8), count=size)
    return (2.0 * bits - 1.0).reshape(shape)
