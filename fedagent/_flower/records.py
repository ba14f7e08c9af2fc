"""Records of parts that are known to fit, and a way into them without detours.

Where Flower has changed what this rests on (`RECORDS`), the public constructors do the same.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedagent._flower.uses import RECORDS

R = TypeVar("R", RecordDict, ArrayRecord, ConfigRecord, MetricRecord)
NDArray = np.ndarray[Any, Any]

_IS_QUICK = RECORDS.is_possible


def record_of(kind: type[R], entries: Mapping[str, Any]) -> R:
    """Return a record, or a message's content, of entries that are known to fit.

    ``kind(entries)`` checks each of them, and ``kind(arrays)`` builds every array anew.
    """
    record = kind()
    if _IS_QUICK:
        record.__dict__["_data"].update(entries)
    else:
        record.update(entries)
    return record


def entries_of(record: RecordDict | ArrayRecord | ConfigRecord | MetricRecord) -> dict[str, Any]:
    """Return what is in a record, by name; not to be changed, as it may be the record's own."""
    entries: dict[str, Any] = record.__dict__["_data"] if _IS_QUICK else dict(record)
    return entries


def array_of(
    kind: type[Array], dtype: str, shape: tuple[int, ...], stype: str, data: bytes
) -> Array:
    """Return an array of parts that are known to fit; its constructor takes five times as long."""
    if not _IS_QUICK:
        return kind(dtype, shape, stype, data)
    array = kind.__new__(kind)
    array.__dict__.update(dtype=dtype, shape=shape, stype=stype, data=data)
    return array


@contextmanager
def quick_records(serialise: Callable[[NDArray], Array]) -> Iterator[None]:
    """Let whatever fills records in this process, Flower too, do it faster; no byte changes.

    ``Array(tensor)``, and so ``ArrayRecord(state_dict)``, has ``numpy.save`` format every header
    anew and copies the bytes twice: a twentieth of a small job's time. And a record builds the type
    ``Callable[[K], None]`` with every entry, which takes as long as all the rest of it.

    Parameters
    ----------
    serialise : an ndarray of numbers in C order to an Array; all others go Flower's way.
    """
    if not _IS_QUICK:
        yield
        return
    from flwr.app.message.typeddict import TypedDict  # noqa: PLC0415  (it may be gone)

    as_before = vars(Array)["from_numpy_ndarray"]

    def from_numpy_ndarray(cls: type[Array], ndarray: NDArray) -> Array:
        is_plain = ndarray.flags.c_contiguous and ndarray.dtype.kind in "fiub"
        return serialise(ndarray) if is_plain else as_before.__func__(cls, ndarray)

    def set_entry(self: TypedDict[Any, Any], key: Any, value: Any) -> None:
        own = self.__dict__
        own["_check_key_fn"](key)
        own["_check_value_fn"](value)
        own["_data"][key] = value

    with (
        _replaced(Array, "from_numpy_ndarray", classmethod(from_numpy_ndarray)),
        _replaced(TypedDict, "__setitem__", set_entry),
    ):
        yield


@contextmanager
def _replaced(kind: type, name: str, value: object) -> Iterator[None]:
    """Replace a class's attribute for a while."""
    as_before = vars(kind)[name]
    setattr(kind, name, value)
    try:
        yield
    finally:
        setattr(kind, name, as_before)
