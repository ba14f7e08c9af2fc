"""A state as the arrays of a safetensors file, and back."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedagent.journal.capture import Snapshot

Arrays = dict[str, np.ndarray[Any, Any]]

_STATE = "state"  # the JSON, as bytes: metadata of a safetensors file may be 100 MB at most


def arrays_of(snapshot: Snapshot, about: Mapping[str, Any]) -> Arrays:
    """Return what a file holds of a state, and what it says about it in plain values."""
    state = {"about": dict(about), "tree": snapshot.tree, "live": snapshot.live}
    encoded = json.dumps(state, separators=(",", ":")).encode()
    return {_STATE: np.frombuffer(encoded, np.uint8), **snapshot.arrays}


def content_of(arrays: Arrays) -> tuple[Snapshot, Mapping[str, Any]]:
    """Return the state that `arrays_of` has made arrays of, and what was said about it."""
    state = json.loads(arrays.pop(_STATE).tobytes())
    live = [[_tuples(way) for way in ways] for ways in state["live"]]
    return Snapshot(state["tree"], arrays, live), state["about"]


def _tuples(way: Any) -> Any:
    return None if way is None else tuple((step, name) for step, name in way)
