"""What a codec is: numbers into fewer bytes, and back, with a length that both ends know before.

A codec works on one segment of the (P,) vector after the other, so nothing it makes is as large as
a model. How many bytes a segment takes follows from its shape alone: whoever decodes knows the
length before he reads, and allocates what he wanted anyway.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedagent.arrays import NDArray
from fedagent.model import BLOCK, ModelSpec
from fedagent.wire.npy import MalformedArrayError

Bytes = npt.NDArray[np.uint8]


class UnencodableError(ValueError):
    """Numbers that a codec cannot express: not finite, or beyond its range."""


@dataclass(frozen=True)
class Segment:
    """A part of the (P,) vector that is encoded by itself.

    Attributes
    ----------
    place : where it lies.
    shape : (n,), or (m, n) where the numbers are a matrix's.
    """

    place: slice
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


class Draws:
    """The random bits of one segment of one job: the same for the same seed, on every machine.

    Only raw bits are used, whose streams NumPy promises to keep.
    """

    def __init__(self, seed: int, segment: int) -> None:
        self._generator = np.random.SFC64(np.random.SeedSequence([seed, segment]))

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return `count` random 64-bit words."""
        raw: npt.NDArray[np.uint64] = self._generator.random_raw(count)
        return raw

    def uniform(self, count: int) -> npt.NDArray[np.float32]:
        """Return `count` numbers of (0, 1), multiples of 2^-17, whose mean is 1/2."""
        halves = self.words(-(-count // 4)).view(np.uint16)[:count]
        return (halves.astype(np.float32) + np.float32(0.5)) * np.float32(2**-16)


class Codec(ABC):
    """Encodes segments, and decodes what anybody may have sent; see `fedagent.wire.codecs`."""

    needs_feedback = False
    """Whether what it leaves out is lost unless it is sent later: its errors have a mean."""
    is_exact = True
    """Whether all machines make the same numbers of the same bytes."""
    is_contraction = True
    """Whether what it leaves out is less than what it was given: feedback would grow otherwise."""

    def segments(self, spec: ModelSpec) -> Iterator[Segment]:
        """Yield the segments of a model's vector, in order; all of it lies in one of them."""
        return in_blocks(0, spec.num_parameters)

    @abstractmethod
    def num_bytes(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Return how many bytes a segment of this shape takes."""

    @abstractmethod
    def encode(self, values: NDArray, shape: tuple[int, ...], draws: Draws) -> list[Any]:
        """Return the bytes of (n,) float32 or float64 numbers, in buffers.

        Raises
        ------
        UnencodableError
            If they are not finite, or too large.
        """

    @abstractmethod
    def decode(self, data: Bytes, shape: tuple[int, ...], draws: Draws, out: NDArray) -> None:
        """Write the numbers that ``num_bytes`` bytes stand for into the (n,) array `out`.

        Raises
        ------
        MalformedArrayError
            If nobody can have encoded them; its reason is ``codec``.
        """


def in_blocks(begin: int, end: int) -> Iterator[Segment]:
    """Yield segments of at most `BLOCK` numbers."""
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        yield Segment(slice(start, stop), (stop - start,))


def encode(
    codec: Codec, vector: NDArray, spec: ModelSpec, seed: int, *, keep_rest: bool = False
) -> list[Any]:
    """Return the bytes of a (P,) vector, in buffers that may be views of it.

    Parameters
    ----------
    codec : how.
    vector : what; with `keep_rest` it holds afterwards what the bytes leave out.
    spec : of the model whose vector it is.
    seed : of the random bits; a job has its own.

    Raises
    ------
    UnencodableError
        If the numbers cannot be encoded; `vector` may have changed.
    """
    parts: list[Any] = []
    scratch = np.empty(0, vector.dtype)
    for number, segment in enumerate(codec.segments(spec)):
        values = vector[segment.place]
        encoded = codec.encode(values, segment.shape, Draws(seed, number))
        if keep_rest:
            encoded = [b"".join(encoded)]
            data = np.frombuffer(encoded[0], np.uint8)
            scratch = scratch if len(scratch) >= len(values) else np.empty_like(values)
            got = scratch[: len(values)]
            codec.decode(data, segment.shape, Draws(seed, number), got)
            np.subtract(values, got, out=values)
        parts += encoded
    return parts


def num_bytes(codec: Codec, spec: ModelSpec) -> int:
    """Return how many bytes a model's vector takes."""
    segments = codec.segments(spec)
    return sum(codec.num_bytes(segment.shape, spec.numpy_dtype) for segment in segments)


def decode(codec: Codec, data: Bytes, spec: ModelSpec, seed: int, out: NDArray) -> Iterator[slice]:
    """Write a vector into the (P,) array `out`, and yield every place as soon as it is written.

    Raises
    ------
    MalformedArrayError
        With reason ``codec`` if the bytes are not what `encode` makes of a vector of `spec`.
    """
    wanted = num_bytes(codec, spec)
    require_sound(len(data) == wanted, f"{len(data)} bytes came in place of {wanted}")
    begin = 0
    for number, segment in enumerate(codec.segments(spec)):
        end = begin + codec.num_bytes(segment.shape, spec.numpy_dtype)
        codec.decode(data[begin:end], segment.shape, Draws(seed, number), out[segment.place])
        yield segment.place
        begin = end


def require_sound(condition: bool, detail: str) -> None:
    """Raise MalformedArrayError unless `condition` holds of received bytes."""
    if not condition:
        raise MalformedArrayError("codec", f"the encoded update cannot be read: {detail}")


def require_finite(values: NDArray) -> None:
    """Raise UnencodableError unless all of the numbers are finite."""
    if len(values) and not np.isfinite(values).all():
        raise UnencodableError("There are NaN or infinities among the numbers.")
