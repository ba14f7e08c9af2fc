"""Ascending positions in few bits: Elias and Fano's code, near the least that is possible.

Of k positions below n each has l = floor(log2(n / k)) low bits as they are, and its other bits h as
a 1 at place h + i of a row of bits, i its rank. So their number of bytes is known, and no two of
them can be equal where the decoder finds k ones.
"""

import numpy as np
import numpy.typing as npt

from fedagent.wire.codec import Bytes, require_sound

Positions = npt.NDArray[np.int64]


def num_bytes(count: int, size: int) -> int:
    """Return how many bytes `count` positions below `size` take."""
    low, high = _bits(count, size)
    return -(-count * low // 8) + -(-high // 8)


def encode(positions: Positions, size: int) -> list[Bytes]:
    """Return the bytes of positions that ascend, without repetition, within [0, size)."""
    count = len(positions)
    low, high = _bits(count, size)
    shifts = np.arange(low)
    marks = np.zeros(high, bool)
    marks[(positions >> low) + np.arange(count)] = True
    return [
        np.packbits(((positions[:, None] >> shifts) & 1).astype(bool).reshape(-1)),
        np.packbits(marks),
    ]


def decode(data: Bytes, count: int, size: int) -> Positions:
    """Return `count` positions that ascend, without repetition, within [0, size).

    Raises
    ------
    MalformedArrayError
        With reason ``codec`` if the bytes hold anything else.
    """
    low, high = _bits(count, size)
    num_low = -(-count * low // 8)
    ones = np.flatnonzero(np.unpackbits(data[num_low:], count=high))
    require_sound(len(ones) == count, f"{len(ones)} positions in place of {count}")
    lowest = np.unpackbits(data[:num_low], count=count * low).reshape(count, low)
    weights = 1 << np.arange(low)
    positions = ((ones - np.arange(count)) << low) + lowest @ weights
    is_sound = not count or (positions[-1] < size and bool((np.diff(positions) > 0).all()))
    require_sound(bool(is_sound), f"positions must ascend, without repetition, within [0, {size})")
    return positions.astype(np.int64)


def _bits(count: int, size: int) -> tuple[int, int]:
    """Return how many low bits a position has, and how many bits tell the others."""
    low = max(0, (size // max(1, count)).bit_length() - 1)
    return low, count + (max(0, size - 1) >> low) + 1
