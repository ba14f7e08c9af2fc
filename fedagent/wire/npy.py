"""Arrays as they travel: in the bytes of a ``.npy`` file."""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from flwr.app import Array

from fedagent._flower import array_of
from fedagent.arrays import ArraySpec, NDArray

NUMPY_STYPE = "numpy.ndarray"
"""What Flower calls the bytes of a ``.npy`` file."""

_MAX_HEADER_BYTES = 4096
_SORTS = {"f": "real", "c": "complex", "i": "integer", "u": "integer", "b": "truth"}


class MalformedArrayError(ValueError):
    """A received array is not what the model holds under that name; `reason` is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class QuickArray(Array):
    """An array that is read without parsing its header again: a tenth of a small job's time."""

    def numpy(self) -> NDArray:
        """Return the array, writable and in memory of its own, as Flower's does."""
        if self.stype != NUMPY_STYPE:
            return super().numpy()
        header = _parse_header(_header(self.data))
        if header.dtype.hasobject:
            return super().numpy()  # which refuses it
        return _view(self.data, header).copy(order="K")

    def __eq__(self, other: object) -> bool:
        """Compare with any array: Flower's own compares with its very class only."""
        names = ("dtype", "shape", "stype", "data")
        return isinstance(other, Array) and all(
            getattr(self, name) == getattr(other, name) for name in names
        )

    __hash__ = None  # type: ignore[assignment]  # as Flower's


def serialised(array: NDArray) -> Array:
    """Return an array of numbers in the bytes of ``numpy.save``, each copied once."""
    header, dtype = _header_for(array.shape, array.dtype)
    data = b"".join((header, np.asarray(array, order="C").data))
    return array_of(Array, dtype, array.shape, NUMPY_STYPE, data)


def of_bytes(parts: Sequence[Any]) -> Array:
    """Return buffers, one after the other, as an array of bytes; each is copied once."""
    size = sum(len(part) for part in parts)
    header, dtype = _header_for((size,), np.dtype(np.uint8))
    return array_of(Array, dtype, (size,), NUMPY_STYPE, b"".join((header, *parts)))


def view_of(array: Array) -> NDArray:
    """Read an array from a trusted source without copying it: read only."""
    return _view(array.data, _parse_header(_header(array.data)))


def read_array(array: Array, spec: ArraySpec) -> NDArray:
    """Read one array from an untrusted source without copying it.

    Flower's ``Array.numpy()`` believes the header inside the data: 128 bytes can ask for terabytes.
    Here header, declaration and length must agree with `spec` before any memory is used.

    Another width, byte order or memory order of the same kind of number is understood: a client
    may work in half precision, or on a big-endian machine.

    Returns
    -------
    A read-only view of the received bytes, or a copy in the dtype of `spec`.

    Raises
    ------
    MalformedArrayError
        With reason ``dtype``, ``shape``, ``malformed``, or ``too-large`` where a number does not
        fit the dtype of `spec`.
    """
    if array.stype != NUMPY_STYPE:
        raise MalformedArrayError("malformed", f"{spec.name!r} is serialised as {array.stype!r}")
    try:
        header = _parse_header(_header(array.data))
    except Exception as error:  # it is parsed as Python: a TokenError or RecursionError, say
        raise MalformedArrayError("malformed", f"{spec.name!r}: {error}") from error
    is_as_wanted = header.name == spec.dtype  # of a dtype: to ask NumPy takes ten times as long
    is_of_a_sort = is_as_wanted or _sort(header.dtype) == _sort(np.dtype(spec.dtype)) is not None
    if not is_of_a_sort or array.dtype != header.name:
        raise MalformedArrayError(
            "dtype",
            f"{spec.name!r} is {header.name} (declared as {array.dtype[:20]!r}), the model's is "
            f"{spec.dtype}",
        )
    if header.shape != spec.shape or tuple(array.shape) != spec.shape:
        raise MalformedArrayError(
            "shape", f"{spec.name!r} is {header.shape}, the model's is {spec.shape}"
        )
    num_bytes = len(array.data) - header.size
    if num_bytes != spec.size * header.dtype.itemsize:
        raise MalformedArrayError("malformed", f"{spec.name!r} has {num_bytes} bytes of data")
    received = _view(array.data, header)
    return received if is_as_wanted else _cast(received, np.dtype(spec.dtype), spec.name)


def _sort(dtype: np.dtype[Any]) -> str | None:
    return _SORTS.get(dtype.kind)


def _cast(received: NDArray, dtype: np.dtype[Any], name: str) -> NDArray:
    """Return an array in another dtype of its sort, unless a number leaves that one's range."""
    with np.errstate(over="ignore"):
        array = received.astype(dtype)
    if dtype.kind in "iu":
        # Both comparisons: -1 as an unsigned integer comes back as -1.
        fits = (array == received) & ((array < 0) == (received < 0))
    else:
        fits = np.isfinite(array) | ~np.isfinite(received)
    if not fits.all():
        raise MalformedArrayError(
            "too-large", f"{name!r} holds numbers that {dtype}, the model's dtype, cannot"
        )
    return array


class _Header(NamedTuple):
    """What stands before the data: `name` is the dtype's, and `size` that of it all in bytes."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    name: str
    size: int


def _view(data: bytes, header: _Header) -> NDArray:
    flat = np.frombuffer(data, header.dtype, math.prod(header.shape), header.size)
    return flat.reshape(header.shape, order=header.order)


@lru_cache(maxsize=1024)
def _header_for(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[bytes, str]:
    """Return what ``numpy.save`` writes before the data of a C-ordered array, and its dtype."""
    stream = io.BytesIO()
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": description, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue(), str(dtype)


def _header(data: bytes) -> bytes:
    """Return the beginning of a ``.npy`` file up to its data: magic, version, length, header."""
    begin = 10 if data[6:7] == b"\x01" else 12
    return data[: min(begin + int.from_bytes(data[8:begin], "little"), _MAX_HEADER_BYTES)]


@lru_cache(maxsize=1024)  # the arrays of a model come with the same headers with every reply
def _parse_header(header: bytes) -> _Header:
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, is_fortran, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    # True is a 1 in a shape too, but not to whoever reshapes by it.
    shape = tuple(map(int, shape))
    return _Header(shape, "F" if is_fortran else "C", dtype, str(dtype), stream.tell())
