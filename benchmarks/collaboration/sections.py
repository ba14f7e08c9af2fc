"""The sections: each a question, and the function that answers it."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.collaboration import personalisation
from benchmarks.hierarchy.comparison import hierarchy
from benchmarks.two_nodes.study import study
from fedagent.mixing import Mixing, MixingMatrix, complete, ring, star, torus
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import ASGD, FedBuff, Rule
from fedagent.rules.staleness import constant
from fedagent.update import Update

Section = dict[str, Any]
TOPOLOGIES = {"ring": ring, "torus": torus, "star": star}
NODES = 16
QUICK = 1, (0.05, 0.4), 600  # of `personalisation.study`: seeds, rates to choose from, updates
FULL = 3, personalisation.RATES, 1200


def zeros(num_parameters: int) -> FlatModel:
    """Return a float32 model at the origin."""
    arrays = {"x": np.zeros(num_parameters, np.float32)}
    return FlatModel(ModelSpec.of(arrays), arrays)


def receive(rule: Rule, model: FlatModel, node: int, delta: torch.Tensor, tau: int = 0) -> None:
    """Let an update of the node with that place arrive."""
    base = model.vector if (theta := rule.model_for(node)) is None else theta
    update = Update(node, delta, base.clone(), tau, metrics={"partition-id": node})
    assert rule.rejection(update) is None
    model.version += rule.receive(model, update)


def equivalence(quick: bool) -> Section:
    """Train the same fleet with complete mixing and with the matching rule on one model."""
    k, updates = personalisation.NODES, 200 if quick else 400
    pairs: dict[str, tuple[Rule, Rule]] = {
        "synchronous, FedBuff(K)": (
            Mixing(complete(k), constant, buffer_size=k),
            FedBuff(k, staleness=constant, weighted=False),
        ),
        "asynchronous, ASGD(1/K)": (Mixing(complete(k), constant), ASGD(1 / k)),
    }
    rows = {}
    for name, rules in pairs.items():
        mixed, single = (
            personalisation.asynchronous(rule, "rotated", 0.1, 1, updates).model.vector
            for rule in rules
        )
        rows[name] = {
            "updates": updates,
            "largest_difference": float((mixed - single).abs().max()),
            "largest_parameter": float(single.abs().max()),
        }
    return rows


def distances(matrix: MixingMatrix, sweeps: int) -> list[float]:
    """Return the consensus distance after a push apart and after each of `sweeps` quiet sweeps."""
    rule, model = Mixing(matrix, constant, buffer_size=matrix.num_nodes, consensus=1.0), zeros(64)
    generator = torch.Generator().manual_seed(0)
    fallen = []
    for sweep in range(sweeps + 1):
        for node in range(matrix.num_nodes):
            push = torch.randn(64, generator=generator) * (sweep == 0)
            receive(rule, model, node, push)
        fallen.append(rule.metrics()["consensus-distance"])
    return fallen


def second_eigenvalue(matrix: MixingMatrix) -> float:
    """Return the second largest modulus of C's eigenvalues, by numpy."""
    return float(np.sort(np.abs(np.linalg.eigvals(matrix.dense())))[-2])


def consensus(quick: bool) -> Section:
    """Measure the factor per sweep by which the consensus distance falls, once one mode is left."""
    rows = {}
    for name, build in TOPOLOGIES.items():
        matrix = build(NODES)
        fallen = distances(matrix, sweeps=(last := 40))
        first = last // 2  # later, float32 would show on the torus
        if name == "torus":
            first, last = 10, 15
        measured = (fallen[last] / fallen[first]) ** (1 / (last - first))
        rows[name] = {"measured": measured, "eigenvalue": second_eigenvalue(matrix)}
        rows[name]["relative_error"] = measured / rows[name]["eigenvalue"] - 1
    return rows


def personal(quick: bool) -> Section:
    """Compare learned mixing with its alternatives on nodes in hidden groups."""
    kinds, settings = (["rotated"], QUICK) if quick else (["rotated", "labels"], FULL)
    return {kind: personalisation.study(kind, *settings)[0] for kind in kinds}


def regression(quick: bool) -> Section:
    """Compare two nodes' paths with the recursion, and their ends with the optima."""
    steps = 40 if quick else 300
    return {kind: study(kind, steps)[0] for kind in ("linear", "logistic")}


def cost(quick: bool) -> Section:
    """Time the arrival of one update, and a sweep of a hundred."""
    k, size = 100, 120_000
    rows = {}
    for name, build in {"ring": ring, "complete": complete}.items():
        for buffer_size in (1, k):
            rule, model = Mixing(build(k), buffer_size=buffer_size), zeros(size)
            deltas = [torch.randn(size) for _ in range(k)]
            receive(rule, model, 0, deltas[0].clone())  # allocates the models
            repeats = k - 1 if buffer_size > 1 else 20
            begin = time.perf_counter()
            for node in range(1, 1 + repeats):
                receive(rule, model, node, deltas[node].clone(), min(node, model.version))
            milliseconds = 1e3 * (time.perf_counter() - begin) / repeats
            rows[f"{name}, buffer_size={buffer_size}"] = round(milliseconds, 3)
    return {"milliseconds_per_update": rows}


SECTIONS: dict[str, Callable[[bool], Section]] = {
    "equivalence": equivalence,
    "consensus": consensus,
    "personalisation": personal,
    "hierarchy": hierarchy,
    "two_nodes": regression,
    "cost": cost,
}
