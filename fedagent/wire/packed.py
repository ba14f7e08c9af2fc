"""Numbers as they are: a whole model, or a vector, as one array in place of hundreds."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from fedagent.arrays import NDArray
from fedagent.wire.codec import Bytes, Codec, Draws
from fedagent.wire.npy import of_bytes, view_of
from fedagent.wire.records import views_of

PACKED = "@packed"
"""The name of the only array of a packed model."""

_LENGTH_BYTES = 8


class Packed(Codec):
    """Every number in its vector's own dtype, little-endian. Nothing is lost."""

    def num_bytes(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Return as many as the numbers have."""
        return math.prod(shape) * dtype.itemsize

    def encode(self, values: NDArray, shape: tuple[int, ...], draws: Draws) -> list[Any]:
        """Return the numbers' own memory."""
        return [np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data.cast("B")]

    def decode(self, data: Bytes, shape: tuple[int, ...], draws: Draws, out: NDArray) -> None:
        """Copy them."""
        out[:] = data.view(out.dtype.newbyteorder("<"))


def pack(record: ArrayRecord) -> ArrayRecord:
    """Return a model as one array: names, shapes and dtypes in JSON, and the bytes of all arrays.

    Parameters
    ----------
    record : one that `to_record` made.
    """
    arrays = views_of(record)
    forms = [[name, a.shape, a.dtype.str] for name, a in arrays.items()]
    header = json.dumps(forms).encode()
    length = len(header).to_bytes(_LENGTH_BYTES, "little")
    return ArrayRecord({PACKED: of_bytes([length, header, *map(_bytes_of, arrays.values())])})


def unpack(record: Mapping[str, Any]) -> dict[str, NDArray]:
    """Return the arrays of a model that `pack` made: read only, views of what came.

    The source is trusted: nodes unpack what their proxy sent.
    """
    data = view_of(record[PACKED])
    length = int.from_bytes(data[:_LENGTH_BYTES].tobytes(), "little")
    end = _LENGTH_BYTES + length
    arrays = {}
    for name, shape, dtype in json.loads(data[_LENGTH_BYTES:end].tobytes()):
        begin, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(data[begin:end], dtype).reshape(shape)
    return arrays


def _bytes_of(array: NDArray) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
