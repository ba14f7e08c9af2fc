"""Between Flower's records and NumPy arrays."""

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedagent import keys
from fedagent._flower import quick_entries, record_of
from fedagent.model import ArraySpec, NDArray

R = TypeVar("R", ArrayRecord, ConfigRecord, MetricRecord)

_MAX_HEADER_BYTES = 4096
_NUMPY_STYPE = "numpy.ndarray"


class MalformedArrayError(ValueError):
    """A received array is not what the model holds under that name; `reason` is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class QuickArray(Array):
    """An array that is read without parsing its header again: a tenth of a small job's time."""

    def numpy(self) -> NDArray:
        """Return the array, writable and in memory of its own, as Flower's does."""
        if self.stype != _NUMPY_STYPE:
            return super().numpy()
        shape, is_fortran, dtype, offset = _parse_header(_header(self.data))
        if dtype.hasobject:
            return super().numpy()  # which refuses it
        return _view(self.data, shape, is_fortran, dtype, offset).copy(order="K")

    def __eq__(self, other: object) -> bool:
        """Compare with any array: Flower's own compares with its very class only."""
        names = ("dtype", "shape", "stype", "data")
        return isinstance(other, Array) and all(
            getattr(self, name) == getattr(other, name) for name in names
        )

    __hash__ = None  # type: ignore[assignment]  # as Flower's


def quick(record: ArrayRecord) -> ArrayRecord:
    """Return a new record of new arrays with the same bytes, which are read faster."""
    arrays = {
        name: made_of(QuickArray, array.dtype, array.shape, array.stype, array.data)
        for name, array in record.items()
    }
    return record_of(ArrayRecord, arrays)


def made_of(
    kind: type[Array], dtype: str, shape: tuple[int, ...], stype: str, data: bytes
) -> Array:
    """Return an array of parts that are known to fit; its constructor takes five times as long."""
    array = kind.__new__(kind)
    array.__dict__.update(dtype=dtype, shape=shape, stype=stype, data=data)
    return array


def to_record(arrays: Mapping[str, NDArray]) -> ArrayRecord:
    """Serialise named arrays, the bytes of each copied once: Flower's own way copies them twice."""
    return record_of(ArrayRecord, {name: _serialised(array) for name, array in arrays.items()})


@contextmanager
def quick_records() -> Iterator[None]:
    """Let whoever fills records in this process, Flower too, do it faster; nothing else changes.

    ``Array(tensor)``, and so ``ArrayRecord(state_dict)``, copies bytes once, as `to_record`. The
    bytes are those of ``numpy.save``, which formats every header anew: a twentieth of a small job's
    time. What is not a plain array of numbers in C order still goes that way.
    """
    flowers_own = vars(Array)["from_numpy_ndarray"]

    def from_numpy_ndarray(cls: type[Array], ndarray: NDArray) -> Array:
        is_plain = ndarray.flags.c_contiguous and ndarray.dtype.kind in "fiub"
        return _serialised(ndarray) if is_plain else flowers_own.__func__(cls, ndarray)

    setattr(Array, "from_numpy_ndarray", classmethod(from_numpy_ndarray))  # noqa: B010
    try:
        with quick_entries():
            yield
    finally:
        setattr(Array, "from_numpy_ndarray", flowers_own)  # noqa: B010


def _serialised(array: NDArray) -> Array:
    header, dtype = _npy_header(array.shape, array.dtype)
    data = b"".join((header, np.asarray(array, order="C").data))
    return made_of(Array, dtype, array.shape, _NUMPY_STYPE, data)


def from_record(record: ArrayRecord) -> dict[str, NDArray]:
    """Read the arrays of a record from a trusted source."""
    return {name: array.numpy() for name, array in record.items()}


def views_of(record: ArrayRecord) -> dict[str, NDArray]:
    """Read the arrays of a record that `to_record` made, without copying them: read only."""
    return {
        name: _view(array.data, *_parse_header(_header(array.data)))
        for name, array in record.items()
    }


def read_array(array: Array, spec: ArraySpec) -> NDArray:
    """Read one array from an untrusted source without copying it.

    Flower's ``Array.numpy()`` believes the header inside the data: 128 bytes can ask for terabytes.
    Here header, declaration and length must agree with `spec` before any memory is used.

    Returns
    -------
    A read-only view of the received bytes.

    Raises
    ------
    MalformedArrayError
        With reason ``dtype``, ``shape`` or ``malformed``.
    """
    if array.stype != _NUMPY_STYPE:
        raise MalformedArrayError("malformed", f"{spec.name!r} is serialised as {array.stype!r}")
    try:
        shape, is_fortran, dtype, offset = _parse_header(_header(array.data))
    except Exception as error:  # it is parsed as Python: a TokenError or RecursionError, say
        raise MalformedArrayError("malformed", f"{spec.name!r}: {error}") from error
    if dtype != np.dtype(spec.dtype) or array.dtype != spec.dtype:
        raise MalformedArrayError("dtype", f"{spec.name!r} is {dtype}, the model's is {spec.dtype}")
    if shape != spec.shape or tuple(array.shape) != spec.shape:
        raise MalformedArrayError("shape", f"{spec.name!r} is {shape}, the model's is {spec.shape}")
    if len(array.data) != offset + spec.size * dtype.itemsize:
        raise MalformedArrayError(
            "malformed", f"{spec.name!r} has {len(array.data) - offset} bytes of data"
        )
    return _view(array.data, spec.shape, is_fortran, dtype, offset)


def read_rows(record: ArrayRecord, spec: ArraySpec, dispatched: NDArray) -> NDArray:
    """Read an array from an untrusted source that sends the rows it has changed, and which.

    Parameters
    ----------
    record : what came; it holds ``spec.name`` and that with ``keys.ROWS`` behind it.
    dispatched : the array whose rows are replaced, of the shape and dtype of `spec`.

    Raises
    ------
    MalformedArrayError
        With a reason of `read_array`, or ``rows`` unless they ascend and are rows of the array.
    """
    name = spec.name + keys.ROWS
    count = record[name].shape[0] if len(record[name].shape) == 1 else -1
    if not spec.shape or not 0 <= count <= spec.shape[0]:
        raise MalformedArrayError(
            "rows", f"{name!r} is {tuple(record[name].shape)}, but {spec.name!r} is {spec.shape}"
        )
    rows = read_array(record[name], ArraySpec(name, (count,), "int32")).astype(np.int64)
    if count and (rows[0] < 0 or rows[-1] >= spec.shape[0] or (np.diff(rows) <= 0).any()):
        raise MalformedArrayError(
            "rows", f"{name!r} must ascend, without repetition, within [0, {spec.shape[0]})"
        )
    part = ArraySpec(spec.name, (count, *spec.shape[1:]), spec.dtype)
    array = dispatched.copy()
    array[rows] = read_array(record[spec.name], part)
    return array


def _view(
    data: bytes, shape: tuple[int, ...], is_fortran: bool, dtype: np.dtype[Any], offset: int
) -> NDArray:
    flat = np.frombuffer(data, dtype, math.prod(shape), offset)
    return flat.reshape(shape, order="F" if is_fortran else "C")


@lru_cache(maxsize=1024)
def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[bytes, str]:
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
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether the order is Fortran's, dtype, and where the data begins."""
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, is_fortran, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    return shape, is_fortran, dtype, stream.tell()


def records_of(content: RecordDict, kind: type[R]) -> dict[str, R]:
    """Return the records of one kind by name.

    ``content.array_records`` and its like build a dictionary that writes back into the message and
    check every entry again, for thirty times the price.
    """
    return {
        name: record
        for name, record in content.items()
        if type(record) is kind or isinstance(record, kind)  # which takes longer: an abstract class
    }


def payload_bytes(content: RecordDict) -> int:
    """Return the serialised bytes of all arrays in a message's content."""
    num_bytes = 0
    for record in records_of(content, ArrayRecord).values():
        for array in record.values():
            num_bytes += len(array.data)
    return num_bytes


def common_metrics(records: Sequence[MetricRecord]) -> list[RecordDict]:
    """Return `records`, each in a RecordDict, reduced to the metrics that all of them can average.

    Flower's aggregation presumes that all replies carry the same metrics. In a fleet they need not:
    a metric that a client leaves out, or reports with another length, is left out of the version.
    """

    def form(value: Any) -> int:
        return len(value) if isinstance(value, list) else -1

    shared = set.intersection(*({(k, form(v)) for k, v in r.items()} for r in records))
    names = [k for k, v in records[0].items() if (k, form(v)) in shared]
    reduced = [record_of(MetricRecord, {k: r[k] for k in names}) for r in records]
    return [record_of(RecordDict, {"metrics": record}) for record in reduced]


def digest(record: ArrayRecord) -> str:
    """Return the sha256 over names, shapes, dtypes and bytes of all arrays, in order."""
    sha = hashlib.sha256()
    for name, array in record.items():
        values = array.numpy()
        sha.update(f"{name}:{values.shape}:{values.dtype};".encode())
        sha.update(np.ascontiguousarray(values).data)
    return sha.hexdigest()
