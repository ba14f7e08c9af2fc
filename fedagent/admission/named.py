"""Which of a reply's arrays is which of the model's.

A reply may hold more than the model's record (`record_under`), only some of its arrays, or arrays
without names of their own: ``ArrayRecord(list)`` calls them '0', '1' and so on. What did not come
has not changed.
"""

from collections.abc import Mapping

from flwr.app import Array, ArrayRecord, RecordDict

from fedagent import keys
from fedagent.admission.refusal import RefusedError, refuse_unless
from fedagent.arrays import NDArray
from fedagent.model import ModelSpec, Vector, array_of
from fedagent.update import Outcome
from fedagent.wire.npy import MalformedArrayError, read_array
from fedagent.wire.records import records_of
from fedagent.wire.rows import read_rows


def record_under(key: str, content: RecordDict) -> ArrayRecord:
    """Return a reply's only ArrayRecord, or of several the one under `key`."""
    records = records_of(content, ArrayRecord)
    if len(records) == 1:
        return next(iter(records.values()))
    refuse_unless(
        key in records,
        "array-records",
        f"expected one ArrayRecord, or several and one under arrayrecord_key={key!r}; "
        f"found {sorted(records)[:5]}",
    )
    return records[key]


def named_arrays(record: ArrayRecord, spec: ModelSpec, base: Vector) -> dict[str, NDArray]:
    """Read the arrays of a reply by the model's names.

    Averaged arrays that did not come are those of the (P,) `base`; carried ones are left out.
    """
    names = tuple(s.name for s in spec.arrays)
    received = _by_the_models_names(record, names)
    # Of some arrays only the changed rows came; see `sparse_rows_mod`.
    in_rows = {name for name in spec.offsets if name + keys.ROWS in received}
    unknown = received.keys() - names - {name + keys.ROWS for name in in_rows}
    refuse_unless(
        not unknown and bool(received) and in_rows <= received.keys(),
        "keys",
        f"the reply has arrays that the model does not: {sorted(unknown)[:5]}; a reply may leave "
        "arrays out, and what is no part of the model belongs into another ArrayRecord"
        if unknown
        else "the reply has none of the model's arrays, or rows of one that did not come",
    )
    arrays = {}
    try:
        for s in spec.arrays:
            if s.name in in_rows:
                arrays[s.name] = read_rows(received, s, array_of(base, spec, s))
            elif s.name in received:
                arrays[s.name] = read_array(received[s.name], s)
            elif s.is_averaged:
                arrays[s.name] = array_of(base, spec, s)
    except MalformedArrayError as error:
        raise RefusedError(Outcome.REJECTED, error.reason, str(error)) from error
    return arrays


def carried_arrays(record: ArrayRecord, spec: ModelSpec) -> dict[str, NDArray]:
    """Read the arrays that came beside an encoded update: those that are carried, or some."""
    carried = {s.name: s for s in spec.arrays if not s.is_averaged}
    unknown = record.keys() - carried.keys() - {keys.ENCODED}
    refuse_unless(
        not unknown,
        "keys",
        f"the reply has arrays beside the encoded ones that the model does not carry: "
        f"{sorted(unknown)[:5]}",
    )
    try:
        return {name: read_array(record[name], s) for name, s in carried.items() if name in record}
    except MalformedArrayError as error:
        raise RefusedError(Outcome.REJECTED, error.reason, str(error)) from error


def _by_the_models_names(record: ArrayRecord, names: tuple[str, ...]) -> Mapping[str, Array]:
    """Return the arrays of a list, on either side, under the names of those in their places."""
    received = tuple(record)
    if received == names or len(received) != len(names) or set(received) == set(names):
        return record
    numbers = tuple(str(place) for place in range(len(names)))
    if set(received) == set(numbers):
        return {name: record[number] for name, number in zip(names, numbers, strict=True)}
    if names == numbers:
        return dict(zip(names, record.values(), strict=True))
    return record
