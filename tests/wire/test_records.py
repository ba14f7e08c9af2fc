"""Between Flower's records and arrays: nothing is lost, and nothing untrusted is believed."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given

from fedagent.wire.records import (
    common_metrics,
    digest,
    from_record,
    payload_bytes,
    quick,
    to_record,
    views_of,
)
from tests.wire.npy import ARRAYS


@given(ARRAYS)
def test_arrays_come_back_as_they_were(array):
    back = from_record(to_record({"w": array}))["w"]
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert back.tobytes() == array.tobytes()


@given(ARRAYS)
def test_the_bytes_are_those_of_flowers_own_serialisation(array):
    ours, theirs = to_record({"w": array})["w"], Array(array)
    assert ours == theirs


@given(ARRAYS)
def test_views_are_the_arrays_without_a_copy(array):
    record = to_record({"w": array})
    view = views_of(record)["w"]
    assert (view.shape, view.dtype, view.tobytes()) == (array.shape, array.dtype, array.tobytes())
    assert not view.flags.writeable
    if array.size:
        assert np.shares_memory(view, np.frombuffer(record["w"].data, np.uint8))


@pytest.mark.parametrize("strided", [np.arange(12.0).reshape(3, 4).T, np.arange(12.0)[::3]])
def test_strided_arrays_are_serialised_in_c_order(strided):
    record = to_record({"w": strided})
    assert b"'fortran_order': False" in record["w"].data
    assert np.array_equal(from_record(record)["w"], strided)


def test_the_order_of_names_is_kept():
    names = ["z", "a", "m"]
    assert list(from_record(to_record({n: np.zeros(1) for n in names}))) == names


# --- sizes, metrics, digests ----------------------------------------------------------------------


def test_payload_counts_every_array_of_every_record_and_nothing_else():
    content = RecordDict(
        {
            "a": ArrayRecord({"x": torch.zeros(2), "y": torch.zeros(3)}),
            "b": ArrayRecord({"z": torch.zeros(1)}),
            "metrics": MetricRecord({"loss": [0.5] * 100}),
            "config": ConfigRecord({"blob": b"x" * 1000}),
        }
    )
    assert payload_bytes(content) == 3 * 128 + 4 * 6
    assert payload_bytes(RecordDict()) == 0


@pytest.mark.parametrize(
    ("reported", "common"),
    [
        ([{"loss": 1.0, "n": 2}, {"loss": 3.0, "n": 1}], ["loss", "n"]),
        ([{"loss": 1.0, "n": 2}, {"n": 1}], ["n"]),
        ([{"n": 1, "history": [1.0, 2.0]}, {"n": 1, "history": [1.0, 2.0]}], ["n", "history"]),
        ([{"n": 1, "history": [1.0, 2.0]}, {"n": 1, "history": [1.0]}], ["n"]),
        ([{"n": 1, "loss": 1.0}, {"n": 1, "loss": [1.0]}], ["n"]),
        ([{"n": 1, "loss": []}, {"n": 1, "loss": 0.0}], ["n"]),
        ([{"a": 1.0}, {"b": 1.0}], []),
    ],
)
def test_only_metrics_that_all_clients_can_average_are_kept(reported, common):
    reduced = common_metrics([MetricRecord(r) for r in reported])
    assert [dict(r["metrics"]) for r in reduced] == [{k: r[k] for k in common} for r in reported]
    assert [list(r["metrics"]) for r in reduced] == [common] * len(reported)


def test_the_digest_is_that_of_the_same_arrays_however_they_were_sent():
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    c_order = ArrayRecord({"w": Array(matrix)})
    fortran = ArrayRecord({"w": Array(np.asfortranarray(matrix))})
    assert c_order["w"].data != fortran["w"].data
    assert digest(c_order) == digest(fortran)


BASE = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    "changed",
    [
        {**BASE, "b": np.array([1.0, np.nextafter(np.float32(1), np.float32(2))], np.float32)},
        {**BASE, "b": np.ones(2, np.int32).view(np.float32)},
        {**BASE, "b": BASE["b"].view(np.int32)},
        {**BASE, "b": BASE["b"].reshape(1, 2)},
        {"a": BASE["a"], "c": BASE["b"]},
        {"b": BASE["b"], "a": BASE["a"]},
        {"a": BASE["a"]},
    ],
)
def test_the_digest_changes_with_every_bit_name_shape_dtype_and_the_order(changed):
    assert digest(to_record(changed)) != digest(to_record(BASE))


# --- quick ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [np.array(3.0, np.float32), np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(3, 2))],
    ids=["scalar", "C", "Fortran"],
)
def test_a_quick_record_reads_what_flowers_reads(array):
    record = ArrayRecord({"w": Array(array)})
    copied = quick(record)
    assert copied == record
    assert record == copied
    read, theirs = copied["w"].numpy(), record["w"].numpy()
    assert np.array_equal(read, theirs)
    assert (read.dtype, read.shape) == (theirs.dtype, theirs.shape)
    read[...] = 9.0
    assert np.array_equal(copied["w"].numpy(), theirs), "what was read is the reader's own"
    del copied["w"]
    assert list(record) == ["w"]
