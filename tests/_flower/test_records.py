"""The fast way into records gives what Flower's own way gives."""

import numpy as np
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    MetricRecord,
    RecordDict,
)
from flwr.app.message.typeddict import TypedDict
from hypothesis import given

from fedagent._flower import (
    entries_of,
    quick_records,
    record_of,
)
from fedagent.wire.npy import serialised
from tests.wire.npy import ARRAYS


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (RecordDict, {"metrics": MetricRecord({"loss": 1.0}), "config": ConfigRecord()}),
        (ArrayRecord, {"w": Array(np.ones(3))}),
        (ConfigRecord, {"lr": 0.1, "name": "x"}),
        (MetricRecord, {"loss": [1.0, 2.0]}),
    ],
)
def test_record_of_is_what_the_constructor_makes(kind, entries):
    made, expected = record_of(kind, entries), kind(entries)
    assert made == expected
    assert type(made) is kind
    assert made.object_id == expected.object_id  # all that Flower would send, and its children
    assert entries_of(made) == entries
    made["more"] = next(iter(entries.values()))
    assert "more" not in entries
    with pytest.raises(TypeError):
        made["more"] = object()


@pytest.mark.parametrize("kind", [RecordDict, ArrayRecord, ConfigRecord, MetricRecord])
def test_quick_entries_are_checked_as_flower_checks_them(kind):
    fitting = {RecordDict: ConfigRecord(), ArrayRecord: Array(np.ones(3))}.get(kind, 0.5)

    def outcome(key, value):
        record = kind()
        try:
            record[key] = value
        except (TypeError, ValueError) as error:
            return type(error), str(error)
        return record

    attempts = [("a", fitting), ("a", object()), ("a", [1, "mixed"]), (1, fitting)]
    expected = [outcome(*attempt) for attempt in attempts]
    with quick_records(serialised):
        assert [outcome(*attempt) for attempt in attempts] == expected
    assert vars(TypedDict)["__setitem__"].__module__ == TypedDict.__module__


@given(ARRAYS)
def test_quick_records_change_no_byte(array):
    unusual = np.asfortranarray(array)
    expected = Array(array), Array(unusual)
    with quick_records(serialised):
        assert (Array(array), Array(unusual)) == expected


def test_quick_records_are_undone_and_leaves_the_rest_to_flower():
    with quick_records(serialised):
        made = Array(torch.arange(6.0).reshape(2, 3).T)  # not in C order
        with pytest.raises(ValueError, match="pickle"):
            Array(np.array([object()]))
    assert vars(Array)["from_numpy_ndarray"].__module__ == Array.__module__
    assert made == Array(torch.arange(6.0).reshape(2, 3).T)
