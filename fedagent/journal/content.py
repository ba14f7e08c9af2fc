"""A state as the bytes of a safetensors file, and back."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedagent.journal.capture import Snapshot

_STATE = "state"  # the JSON, as bytes: metadata of a safetensors file may be 100 MB at most


def parts_of(snapshot: Snapshot, about: Mapping[str, Any]) -> Sequence[memoryview]:
    """Return the bytes, in a row, of the safetensors file of a state.

    Arrays are not copied: safetensors' own way does, and holds up all other threads meanwhile.

    Parameters
    ----------
    snapshot : the state.
    about : what is said about it, in plain values.
    """
    state = {"about": dict(about), "tree": snapshot.tree, "live": snapshot.live}
    arrays = {_STATE: _encoded(state), **snapshot.arrays}
    header, end = {}, 0
    for name, array in arrays.items():
        begin, end = end, end + len(array)
        header[name] = {"dtype": "U8", "shape": [len(array)], "data_offsets": [begin, end]}
    encoded = _encoded(header)
    encoded += b" " * (-len(encoded) % 8)  # the format's way of aligning what follows
    parts: list[Any] = [struct.pack("<Q", len(encoded)), encoded, *arrays.values()]
    return [memoryview(part) for part in parts]


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def content_of(arrays: dict[str, np.ndarray[Any, Any]]) -> tuple[Snapshot, Mapping[str, Any]]:
    """Return the state whose file holds these arrays, and what was said about it."""
    state = json.loads(arrays.pop(_STATE).tobytes())
    live = [[_tuples(way) for way in ways] for ways in state["live"]]
    return Snapshot(state["tree"], arrays, live), state["about"]


def _tuples(way: Any) -> Any:
    return None if way is None else tuple((step, name) for step, name in way)
