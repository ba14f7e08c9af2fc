"""Arrivals with times, through a rule under a clock and through an oracle under one."""

import math
from collections.abc import Sequence

import numpy as np

from fedagent.rules import Periodic, Rule
from tests.conformance.oracle import Oracle, Vector
from tests.conformance.replay import OracleRun, RealRun, Work

INITIAL = (0.5, -1.0, 2.0)
PERIOD_S = 2.5
NUM_NODES = 5

Arrival = tuple[float, Work]
Moment = tuple[float, int, int, Vector]
"""(seconds, version, updates that no version holds, the published model)"""


def arrivals(seed: int = 4, length: int = 80) -> list[Arrival]:
    """Nodes at paces of their own, two periods without anybody, and at last everybody at once."""
    rng = np.random.default_rng(seed)
    paces = rng.uniform(0.4, 3.0, NUM_NODES)
    times = sorted((k * pace, node) for node, pace in enumerate(paces) for k in range(1, length))
    times = [(t + 3 * PERIOD_S * (t > 10.0), node) for t, node in times[:length]]
    last_s = times[-1][0] + 1e-3
    return [
        (at_s, Work(node, tuple(rng.normal(size=3)), float(rng.integers(1, 50)), 0, 1 + node))
        for at_s, node in [*times, *((last_s, node) for node in range(NUM_NODES))]
    ]


def real_moments(rule: Rule, history: Sequence[Arrival]) -> list[Moment]:
    """What a rule publishes by the clock; every node starts over from the newest version."""
    run, jobs = RealRun(Periodic(rule, PERIOD_S), INITIAL), {}
    for node in range(NUM_NODES):
        jobs[node] = run.dispatch(node)
    moments = []

    def note(at_s: float) -> None:
        published = np.frombuffer(run.published[run.version])
        moments.append((at_s, run.version, run.rule.pending, published))

    for at_s, work in history:
        while (due_s := run.rule.next_due_s()) <= at_s:
            run.advance(due_s)
            note(due_s)
        run.arrive(jobs[work.node], work, at_s)
        note(at_s)
        jobs[work.node] = run.dispatch(work.node)
    return moments


def oracle_moments(oracle: Oracle, history: Sequence[Arrival]) -> list[Moment]:
    """The same from the definition: look at everything that arrived, period by period."""
    run, jobs = OracleRun(oracle, INITIAL), {}
    for node in range(NUM_NODES):
        jobs[node] = run.dispatch(node)
    moments, period, unpublished, has_moved, is_due = [], 0, 0, False, False

    def note(at_s: float) -> None:
        moments.append((at_s, run.version, unpublished, run.versions[-1]))

    for at_s, work in history:
        now = math.floor(at_s / PERIOD_S)
        if is_due and now > period:
            end = oracle(run.x, None)
            run.x, unpublished = end.x, end.pending
            if has_moved or end.published:
                run.versions.append(end.x)
            has_moved = is_due = False
            note((period + 1) * PERIOD_S)
        step = run.ask(jobs[work.node], work)
        run.x = step.x
        if step.accepted:
            period, is_due = (now if not is_due else period), True
            unpublished += 1
            has_moved = has_moved or step.published
        note(at_s)
        jobs[work.node] = run.dispatch(work.node)
    return moments
