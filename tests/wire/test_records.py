"""Between Flower's records and arrays: nothing is lost, and nothing untrusted is believed."""

import tracemalloc
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fedagent.model import ArraySpec
from fedagent.wire.records import (
    MalformedArrayError,
    common_metrics,
    digest,
    from_record,
    payload_bytes,
    quick,
    quick_records,
    read_array,
    to_record,
    views_of,
)
from tests.wire.npy import header_of, raw, wild_bytes

ARRAYS = arrays_of.arrays(
    st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"]),
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


def spec_of(array: np.ndarray, name: str = "w") -> ArraySpec:
    return ArraySpec(name, array.shape, str(array.dtype))


# --- there and back -------------------------------------------------------------------------------


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
def test_quick_records_change_no_byte(array):
    unusual = np.asfortranarray(array)
    expected = Array(array), Array(unusual)
    with quick_records():
        assert (Array(array), Array(unusual)) == expected


def test_quick_records_are_undone_and_leaves_the_rest_to_flower():
    with quick_records():
        made = Array(torch.arange(6.0).reshape(2, 3).T)  # not in C order
        with pytest.raises(ValueError, match="pickle"):
            Array(np.array([object()]))
    assert vars(Array)["from_numpy_ndarray"].__module__ == Array.__module__
    assert made == Array(torch.arange(6.0).reshape(2, 3).T)


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


# --- read_array -----------------------------------------------------------------------------------


@given(ARRAYS)
def test_a_well_formed_array_is_read(array):
    read = read_array(Array(array), spec_of(array))
    assert (read.shape, read.dtype) == (array.shape, array.dtype)
    assert read.tobytes() == array.tobytes()


@given(ARRAYS)
def test_an_array_in_fortran_order_is_read_correctly(array):
    sent = Array(np.array(array, order="F"))
    assert read_array(sent, spec_of(array)).tobytes() == array.tobytes()


def test_fortran_order_in_the_data_is_not_c_order():
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    sent = Array(np.asfortranarray(matrix))
    assert b"'fortran_order': True" in sent.data
    assert read_array(sent, spec_of(matrix)).tolist() == matrix.tolist()


def test_reading_copies_nothing_and_cannot_be_written_to():
    large = np.zeros(5_000_000, np.float32)
    sent = Array(large)
    tracemalloc.start()
    try:
        read = read_array(sent, spec_of(large))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000
    received = np.frombuffer(sent.data, np.uint8)
    assert np.shares_memory(read, received)
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 1.0


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version):
    body = np.array([1.5, -2.0], np.float32).tobytes()
    read = read_array(raw(header_of(), body, version=version), ArraySpec("w", (2,), "float32"))
    assert read.tolist() == [1.5, -2.0]


TWO_FLOATS = b"\0" * 8
BAD = {
    "another dtype": (raw(header_of("'<f8'"), TWO_FLOATS), "dtype"),
    "another byte order": (raw(header_of("'>f4'"), TWO_FLOATS), "dtype"),
    "python objects": (raw(header_of("'|O'"), TWO_FLOATS), "dtype"),
    "fields": (raw(header_of("[('x', '<f4')]"), TWO_FLOATS), "dtype"),
    "another declared dtype": (
        Array("float64", (2,), "numpy.ndarray", raw(header_of(), TWO_FLOATS).data),
        "dtype",
    ),
    "another shape": (raw(header_of(shape="(2, 1)"), TWO_FLOATS), "shape"),
    "a shape that broadcasts": (raw(header_of(shape="(1,)"), TWO_FLOATS[:4]), "shape"),
    "a negative shape": (raw(header_of(shape="(-2,)"), TWO_FLOATS), "shape"),
    "terabytes": (raw(header_of(shape=f"({2**42},)"), TWO_FLOATS), "shape"),
    "another declared shape": (raw(header_of(), TWO_FLOATS, shape=(1, 2)), "shape"),
    "too little data": (raw(header_of(), TWO_FLOATS[1:]), "malformed"),
    "too much data": (raw(header_of(), TWO_FLOATS + b"\0"), "malformed"),
    "no data": (Array("float32", (2,), "numpy.ndarray", b""), "malformed"),
    "another format": (Array("float32", (2,), "numpy.ndarray", b"PK\3\4" * 40), "malformed"),
    "another serialisation": (
        Array("float32", (2,), "pickle", raw(header_of(), TWO_FLOATS).data),
        "malformed",
    ),
    "a header longer than the data": (raw(header_of(), header_bytes=60_000), "malformed"),
    "a header of gigabytes": (
        raw(header_of(), version=(2, 0), header_bytes=2**32 - 1),
        "malformed",
    ),
    "a shape that is no tuple": (raw(header_of(shape="[2]"), TWO_FLOATS), "malformed"),
    "an order that is no truth": (raw(header_of(fortran="'no'"), TWO_FLOATS), "malformed"),
    "a dtype that is none": (raw(header_of("'x9'"), TWO_FLOATS), "malformed"),
    "no dictionary": (raw(b"[1, 2]"), "malformed"),
    "an open bracket": (raw(b"{("), "malformed"),
    "nested brackets": (raw(b"(" * 4000), "malformed"),
    "nested signs": (raw(b"-" * 4000 + b"1"), "malformed"),
    "an unhashable key": (raw(b"{[]: 1}"), "malformed"),
    "other keys": (raw(b"{1: 2, 'shape': (2,)}"), "malformed"),
    "code": (raw(b"__import__('os').abort()"), "malformed"),
    "zero bytes": (raw(b"\0" * 64), "malformed"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_malformed_array_is_refused_with_its_reason_and_no_memory(what):
    sent, reason = BAD[what]
    tracemalloc.start()
    try:
        with pytest.raises(MalformedArrayError, match="'w'") as refused:
            read_array(sent, ArraySpec("w", (2,), "float32"))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.reason == reason
    assert peak_bytes < 3_000_000


def test_a_header_that_claims_all_the_data_is_refused_without_reading_it():
    sent = raw(header_of(), bytes(20_000_000), version=(2, 0), header_bytes=20_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedArrayError):
            read_array(sent, ArraySpec("w", (2,), "float32"))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_a_shape_of_truths_is_read_as_the_models():
    sent = raw(header_of(shape="(True,)"), TWO_FLOATS[:4], shape=(1,))
    assert read_array(sent, ArraySpec("w", (1,), "float32")).shape == (1,)


GOOD = Array(np.array([1.0, 2.0], np.float32)).data


@settings(max_examples=300, deadline=None)
@given(wild_bytes(GOOD, TWO_FLOATS))
def test_whatever_the_bytes_are_they_are_two_floats_or_refused(data):
    sent, spec = Array("float32", (2,), "numpy.ndarray", data), ArraySpec("w", (2,), "float32")
    tracemalloc.start()
    try:
        with warnings.catch_warnings(), suppress(MalformedArrayError):
            warnings.simplefilter("ignore")
            read = read_array(sent, spec)
            assert (read.shape, read.dtype) == ((2,), np.float32)
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 3_000_000


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
