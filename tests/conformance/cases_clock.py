"""Every rule that a clock may publish, with a size of its own and, where it has a buffer, without.

Wrapped Flower strategies and the collaborative rule are here too; how they follow their oracles
without a clock is in tests/strategies/test_wrapping.py and tests/mixing/test_oracle.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, Strategy

from fedagent.mixing import Mixing, ring
from fedagent.rules import Rule, staleness
from fedagent.strategies.flower_rule import FlowerRule
from tests.conformance import cases, cases_memory, cases_sgd, oracle
from tests.conformance.clock import INITIAL, NUM_NODES
from tests.conformance.oracle import Formula, Oracle, Reply, Step, Vector, waits
from tests.mixing.oracle import Job
from tests.mixing.oracle import Oracle as DenseMixing


@dataclass(frozen=True)
class ClockCase:
    """A rule that is to be published by the clock, and its independent twin."""

    name: str
    rule: Callable[[], Rule]
    oracle: Callable[[], Oracle]


class MixingOracle:
    """The dense recursion in the shape of an oracle; the published model is the nodes' mean."""

    def __init__(self, buffer_size: int | None) -> None:
        dense = ring(NUM_NODES).dense()
        self._dense = DenseMixing(dense, staleness.polynomial, buffer_size, 0.7, INITIAL)
        self._jobs: dict[int, Job] = {}

    def dispatched(self, node: int) -> None:
        counters = self._dense.counters.copy()
        self._jobs[node] = Job(node, self._dense.theta[node].copy(), counters, 0)

    def __call__(self, x: Vector, reply: Reply | None) -> Step:
        if reply is None:
            is_new = self._dense.sweep()
        else:
            is_new = self._dense.arrive(self._jobs[reply.node], reply.D)
        mean = self._dense.theta.mean(0)
        return Step(mean, None, published=is_new, pending=len(self._dense.buffer))


Aggregate = Callable[[Vector, list[Vector], list[float]], Vector]
"""(x, weighted deltas, examples) -> the next x."""


def mean_of(x: Vector, deltas: list[Vector], examples: list[float]) -> Vector:
    return x + np.average(deltas, axis=0, weights=examples)


def median_of(x: Vector, deltas: list[Vector], examples: list[float]) -> Vector:
    return x + np.median(deltas, axis=0)


class Adam:
    """arXiv 2003.00295 as Flower has it: moments of the mean step, bias corrected by the round."""

    def __init__(self, eta: float) -> None:
        self.eta, self.m, self.v = eta, 0.0, 0.0

    def __call__(
        self, x: Vector, deltas: list[Vector], examples: list[float], t: int = 0
    ) -> Vector:
        delta = np.average(deltas, axis=0, weights=examples)
        self.m = 0.9 * self.m + 0.1 * delta
        self.v = 0.99 * self.v + 0.01 * delta**2
        eta = self.eta * np.sqrt(1 - 0.99 ** (t + 2)) / (1 - 0.9 ** (t + 2))
        return x + eta * self.m / (np.sqrt(self.v) + 1e-3)


def wrapped(aggregate: Any, buffer_size: int | None, s: Formula) -> Oracle:
    """Every buffer_size replies x <- aggregate(x, s D)."""
    buffer: list[Reply] = []
    versions = 0

    def step(x: Vector, reply: Reply | None) -> Step:
        nonlocal versions
        buffer.extend([reply] if reply else [])
        versions = reply.t if reply else versions
        if waits(buffer, buffer_size, reply):
            return Step(x, None, published=False, pending=len(buffer))
        deltas, examples = [s(r.tau) * r.D for r in buffer], [r.n for r in buffer]
        buffer.clear()
        rounds = {"t": versions} if isinstance(aggregate, Adam) else {}
        return Step(aggregate(x, deltas, examples, **rounds), None, published=True)

    return step


def flower(
    build: Callable[[], Strategy], aggregate: Callable[[], Any], size: int | None
) -> ClockCase:
    return ClockCase(
        f"{type(build()).__name__}-K{size}",
        lambda: FlowerRule(build(), size),
        lambda: wrapped(aggregate(), size, oracle.polynomial(0.5)),
    )


def mixing(buffer_size: int | None) -> ClockCase:
    return ClockCase(
        f"mixing-B{buffer_size}",
        lambda: Mixing(ring(NUM_NODES), buffer_size=buffer_size, consensus=0.7),
        lambda: MixingOracle(buffer_size),
    )


NEVER_FULL = [
    cases.fedbuff("polynomial", "buffer", weighted=True, size=None),
    cases.fedbuff("hinge", "weights", weighted=False, size=None),
    cases_sgd.fednova("polynomial", weighted=True, size=None),
    cases_sgd.rennala(None),
    cases_memory.ca2fl(num_nodes=5, size=None),
    cases_memory.fadas("never-full", 0.7, 0.5, 0.75, 1.0, 1, size=None),
    cases_memory.port(w_c=1, w_s=3, beta=10, size=None),
    cases_memory.fedstaleweight(average=True, size=None),
    cases_memory.fedstaleweight(average=False, size=None),
]

CLOCK_CASES = [
    *(
        ClockCase(case.name, case.rule, case.oracle)
        for case in cases.CASES
        if case.rule().allows_clock
    ),
    *(ClockCase(f"{case.name}-never-full", case.rule, case.oracle) for case in NEVER_FULL),
    *(mixing(size) for size in (1, 3, None)),
    *(
        flower(build, aggregate, size)
        for build, aggregate in (
            (FedAvg, lambda: mean_of),
            (FedMedian, lambda: median_of),
            (lambda: FedAdam(eta=0.3), lambda: Adam(0.3)),
        )
        for size in (2, None)
    ),
]

REFUSES_A_CLOCK = [
    ClockCase(case.name, case.rule, case.oracle)
    for case in cases.CASES
    if not case.rule().allows_clock
]
