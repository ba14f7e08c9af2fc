"""Array bytes written by hand, and wild ones: what an untrusted client may send."""

import struct

from flwr.app import Array
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

ARRAYS = arrays_of.arrays(
    st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"]),
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
"""Arrays of numbers of every shape and dtype that a model has."""


def header_of(descr="'<f4'", fortran="False", shape="(2,)") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()


def raw(
    header: bytes,
    body: bytes = b"",
    *,
    version: tuple[int, int] = (1, 0),
    shape: tuple[int, ...] = (2,),
    header_bytes: int | None = None,
) -> Array:
    """An array that is declared as float32 of `shape`, whatever its bytes say.

    `header_bytes` is how long the header claims to be, if that is not the truth.
    """
    size = len(header) if header_bytes is None else header_bytes
    length = struct.pack("<H" if version == (1, 0) else "<I", size)
    return Array(
        "float32", shape, "numpy.ndarray", b"\x93NUMPY" + bytes(version) + length + header + body
    )


def wild_bytes(good: bytes, body: bytes) -> st.SearchStrategy[bytes]:
    """Bytes from noise to nearly right: `good` is a whole array's, `body` what follows a header."""
    return st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=200).map(lambda tail: good[:10] + tail),
        st.text("{}()[]'\",:0123456789-+~ descrfotan_hpFTuel<>|if\n\\", max_size=120).map(
            lambda header: raw(header.encode(), body).data
        ),
        st.tuples(st.integers(0, len(good) - 1), st.binary(min_size=1, max_size=4)).map(
            lambda patch: good[: patch[0]] + patch[1] + good[patch[0] + len(patch[1]) :]
        ),
    )
