"""Between Flower's records and NumPy arrays."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedagent._flower import array_of, entries_of, record_of
from fedagent.arrays import NDArray
from fedagent.wire.npy import QuickArray, serialised, view_of

R = TypeVar("R", ArrayRecord, ConfigRecord, MetricRecord)

_KINDS = (ArrayRecord, ConfigRecord, MetricRecord)


def quick(record: ArrayRecord) -> ArrayRecord:
    """Return a new record of new arrays with the same bytes, which are read faster."""
    arrays = {
        name: array_of(QuickArray, array.dtype, array.shape, array.stype, array.data)
        for name, array in record.items()
    }
    return record_of(ArrayRecord, arrays)


def to_record(arrays: Mapping[str, NDArray]) -> ArrayRecord:
    """Serialise named arrays, the bytes of each copied once: Flower's own way copies them twice."""
    return record_of(ArrayRecord, {name: serialised(array) for name, array in arrays.items()})


def from_record(record: ArrayRecord) -> dict[str, NDArray]:
    """Read the arrays of a record from a trusted source."""
    return {name: array.numpy() for name, array in record.items()}


def views_of(record: ArrayRecord) -> dict[str, NDArray]:
    """Read the arrays of a record that `to_record` made, without copying them: read only."""
    return {name: view_of(array) for name, array in record.items()}


def records_of(content: RecordDict, kind: type[R]) -> dict[str, R]:
    """Return the records of one kind by name.

    ``content.array_records`` and its like build a dictionary that writes back into the message and
    check every entry again, for thirty times the price.
    """
    return {
        name: record
        for name, record in entries_of(content).items()
        # To ask whether it is an instance takes longer: these are abstract classes.
        if type(record) is kind or (type(record) not in _KINDS and isinstance(record, kind))
    }


def metrics_of(content: RecordDict, key: str) -> MetricRecord | None:
    """Return the only MetricRecord in a message, or of several the only one that holds `key`."""
    records = list(records_of(content, MetricRecord).values())
    if len(records) != 1:
        records = [record for record in records if key in record]
    return records[0] if len(records) == 1 else None


def payload_bytes(content: RecordDict) -> int:
    """Return the serialised bytes of all arrays in a message's content."""
    num_bytes = 0
    for record in records_of(content, ArrayRecord).values():
        for array in entries_of(record).values():
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
