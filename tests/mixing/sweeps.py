"""The collaborative rule in a pure loop, and the dense recursion it must equal."""

from collections.abc import Callable

import numpy as np
import torch

from fedagent.mixing import Mixing, Weights
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import Rule
from fedagent.update import Update

Gradient = Callable[[int, np.ndarray], np.ndarray]
"""(node, its (P,) model) -> the (P,) Delta of its local steps."""


def flat_model(num_parameters: int, dtype: str = "float64") -> FlatModel:
    arrays = {"x": np.zeros(num_parameters, dtype)}
    return FlatModel(ModelSpec.of(arrays), arrays)


def update(
    node: int,
    delta: np.ndarray,
    base: np.ndarray,
    staleness: int = 0,
    metrics: dict | None = None,
    dtype: torch.dtype = torch.float64,
) -> Update:
    """An update of the node with this place in the mixing."""
    return Update(
        node_id=1000 + int(node),
        delta=torch.tensor(delta).to(dtype),
        base=torch.as_tensor(base).to(dtype),
        staleness=staleness,
        metrics={"partition-id": int(node)} if metrics is None else metrics,
    )


def arrive(rule: Rule, model: FlatModel, arriving: Update) -> bool:
    """Receive as the proxy does: ask first, and count the version that comes of it."""
    assert rule.rejection(arriving) is None
    published = rule.receive(model, arriving)
    model.version += published
    return published


def sweep(rule: Mixing, model: FlatModel, local: Gradient) -> np.ndarray:
    """Let every node work on its model and every update arrive; return the (K, P) models."""
    own = [rule.model_for(1000 + node) for node in range(rule.mixing.num_nodes)]
    starts = [(model.vector if theta is None else theta).clone() for theta in own]
    for node, start in enumerate(starts):
        delta = local(node, start.double().numpy())
        arrive(rule, model, update(node, delta, start, dtype=model.vector.dtype))
    assert rule.models is not None
    return rule.models.double().numpy().copy()


def synchronous(mixing: Weights, **settings) -> Mixing:
    return Mixing(mixing, buffer_size=mixing.num_nodes, **settings)
