"""A model that moves by encoded differences: both ends add the same and hold the same bytes."""

from collections.abc import Mapping, Sequence
from glob import escape
from typing import Any

import numpy as np
import torch

from fedagent.arrays import NDArray
from fedagent.model import ModelSpec, Vector, blocks
from fedagent.wire.codec import Bytes, Codec, decode, encode


def spec_of(arrays: Mapping[str, NDArray], whole: Sequence[str]) -> ModelSpec:
    """Return the proxy's spec of a model, as a node sees it.

    Parameters
    ----------
    whole : the floating arrays that are carried, which no node can tell by itself.
    """
    return ModelSpec.of(arrays, {escape(name): "keep" for name in whole})


def whole_names(spec: ModelSpec) -> list[str]:
    """Return the floating arrays of a spec that are carried."""
    return [s.name for s in spec.arrays if not s.is_averaged and np.dtype(s.dtype).kind in "fc"]


def difference(spec: ModelSpec, target: Vector, start: Vector) -> NDArray:
    """Return target - start, (P,)."""
    vector = spec.empty()
    for out, y, x in blocks(vector, target, start):
        torch.sub(y, x, out=out)
    return vector.numpy()


def move(codec: Codec, spec: ModelSpec, target: Vector, held: Vector, seed: int) -> list[Any]:
    """Return the bytes of Q(target - held)."""
    return encode(codec, difference(spec, target, held), spec, seed)


def moved(
    codec: Codec, spec: ModelSpec, held: Vector, data: Bytes, seed: int
) -> dict[str, NDArray]:
    """Return the averaged arrays of held + Q, in their own dtypes."""
    vector = spec.empty()
    for _ in decode(codec, data, spec, seed, vector.numpy()):
        pass
    for total, start in blocks(vector, held):
        total.add_(start)
    return {s.name: spec.array(s, vector) for s in spec.arrays if s.is_averaged}
