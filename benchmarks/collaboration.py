"""What the collaborative model does, section by section, in numbers.

equivalence       complete mixing, c_ik = 1/K, beside the rule with one averaged model
consensus         how fast distances fall on ring, torus and star, beside numpy's eigenvalue
personalisation   hidden groups: learned mixing beside one global model and learning alone
hierarchy         a proxy per region beside one for all: time and bytes between regions
two_nodes         linear and logistic regression beside a recursion in NumPy
cost              milliseconds per update of 120,000 parameters on 100 nodes

python -m benchmarks.collaboration [--quick] [--figures docs/figures]     JSON on the last line
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks import personalisation, two_nodes
from benchmarks.hierarchy import hierarchy
from fedagent.mixing import Mixing, MixingMatrix, complete, ring, star, torus
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import ASGD, FedBuff, Rule
from fedagent.staleness import constant
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
    return {kind: two_nodes.study(kind, steps)[0] for kind in ("linear", "logistic")}


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


def plot_consensus(file: Path) -> None:
    """Draw distances beside powers of the second eigenvalue."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for (name, build), color in zip(TOPOLOGIES.items(), ("C0", "C1", "C2"), strict=True):
        matrix = build(NODES)
        fallen, second = distances(matrix, 30), second_eigenvalue(matrix)
        fallen = [distance / fallen[0] for distance in fallen]
        axis.semilogy(fallen, "o", ms=4, color=color, label=f"{name}, $|\\lambda_2|$={second:.3f}")
        late = 8
        line = [fallen[late] * second ** (t - late) for t in range(len(fallen))]
        axis.semilogy(line, "--", lw=1, color=color)
    axis.set(xlabel="sweeps", ylabel="consensus distance, relative to the first", ylim=(1e-4, 1.5))
    axis.legend()
    figure.savefig(file, dpi=110)


def plot_personalisation(file: Path, settings: tuple[int, tuple[float, ...], int]) -> None:
    """Draw the mean and the worst node's accuracy of one seed over the updates."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    _, curves = personalisation.study("rotated", *settings)
    for n, (name, run) in enumerate(curves.items()):
        color = f"C{n}"
        axis.plot(run.updates, run.mean, "-", color=color, label=name)
        axis.plot(run.updates, run.worst, ":", color=color)
    axis.set(xlabel="updates", ylabel="accuracy: mean (line), worst node (dots)")
    axis.legend()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: one seed, shorter")
    parser.add_argument("--section", choices=SECTIONS, help="this one only")
    parser.add_argument("--figures", type=Path, help="write the figures into this folder too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sections = {}
    for name, section in SECTIONS.items():
        if options.section in (None, name):
            begin = time.perf_counter()
            sections[name] = section(options.quick)
            print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)
    if options.figures:
        drawings: dict[str, Callable[[Path], None]] = {
            "two_nodes.png": two_nodes.plot,
            "consensus.png": plot_consensus,
            "personalisation.png": partial(
                plot_personalisation, settings=QUICK if options.quick else FULL
            ),
        }
        for name, draw in drawings.items():
            draw(options.figures / name)
    print(
        json.dumps(
            {
                "benchmark": "collaboration",
                "quick": options.quick,
                "sections": sections,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "networkx": nx.__version__,
                "machine": platform.machine(),
                "cpus": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
