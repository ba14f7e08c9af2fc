"""Arrays as bytes: nothing untrusted is believed."""

import tracemalloc
import warnings
from contextlib import suppress

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given, settings

from fedagent.arrays import ArraySpec
from fedagent.wire.npy import (
    MalformedArrayError,
    read_array,
)
from tests.wire.npy import ARRAYS, header_of, raw, wild_bytes


def spec_of(array: np.ndarray, name: str = "w") -> ArraySpec:
    return ArraySpec(name, array.shape, str(array.dtype))


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
    "another dtype than declared": (raw(header_of("'<f8'"), TWO_FLOATS * 2), "dtype"),
    "another byte order than declared": (raw(header_of("'>f4'"), TWO_FLOATS), "dtype"),
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
