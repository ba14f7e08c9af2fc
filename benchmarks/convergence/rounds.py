"""Synchronous training as a pure loop, with the cut-offs of `fedagent.strategies.cutoff`."""

import heapq
import math

import numpy as np

from benchmarks.convergence.trace import Budget, Problem, Trace
from fedagent.statistics import Statistics
from fedagent.strategies.cutoff import Cutoff, Durations

WAIT_FOR_ALL = Cutoff()


def synchronous(
    problem: Problem,
    seconds_per_step: np.ndarray,
    *,
    cohort: int,
    local_steps: int,
    learning_rate: float,
    seed: int,
    budget: Budget,
    cutoff: Cutoff = WAIT_FOR_ALL,
) -> Trace:
    """Train as FedAvg does: a random cohort of free nodes, the weighted mean of who is in time."""
    rng = np.random.default_rng(seed)
    vector = problem.initial(seed)
    trace = Trace(problem.target, statistics=Statistics(is_virtual=True, concurrency=cohort))
    statistics, durations_s = trace.statistics, local_steps * seconds_per_step
    fleet = _Fleet(durations_s, Durations(cutoff))
    asked = min(math.ceil(round(cohort * (cutoff.over_selection or 1.0), 9)), problem.num_nodes)
    trace.add(problem, vector)
    next_score = 0
    while statistics.num_updates < budget.updates and statistics.now_s < budget.seconds:
        nodes = rng.choice(fleet.shown(asked), asked, replace=False)
        statistics.now_s, in_time = fleet.round(nodes, cohort)
        statistics.at_work_max = fleet.at_work_max
        if in_time:
            weights = problem.weights[in_time] / problem.weights[in_time].sum()
            deltas = [problem.work(k, vector, local_steps, learning_rate, rng) for k in in_time]
            vector = vector + sum(w * d for w, d in zip(weights, deltas, strict=True))
        statistics.busy_s += float(durations_s[in_time].sum())
        for duration_s in durations_s[in_time]:
            statistics.received(0, float(duration_s))
        is_over = statistics.num_updates >= budget.updates
        if is_over or statistics.num_updates >= next_score:
            next_score = statistics.num_updates + budget.score_every
            if not trace.add(problem, vector) or (budget.at_target and trace.is_at_target):
                break
    trace.vector = vector
    return trace


class _Fleet:
    """Who is at work until when; a node does one job after the other."""

    def __init__(self, durations_s: np.ndarray, durations: Durations) -> None:
        self._durations_s, self._durations = durations_s, durations
        self._jobs: list[tuple[float, int]] = []  # (done at, node), of all that are under way
        self._busy_until_s: dict[int, float] = {}  # who has been busy longest first
        self._now_s, self.at_work_max = 0.0, 0

    def shown(self, asked: int) -> np.ndarray:
        """Return the free nodes; if fewer than are asked, with some of the busy."""
        nodes = np.arange(len(self._durations_s))
        free = nodes[[k not in self._busy_until_s for k in nodes.tolist()]]
        missing = max(0, asked - len(free))
        return np.concatenate([free, np.array(list(self._busy_until_s)[:missing], int)])

    def round(self, nodes: np.ndarray, enough: int) -> tuple[float, list[int]]:
        """Let a cohort work; return when the round ends, and who is in time, in order of `nodes`.

        A reply at the deadline is in time.
        """
        begun_s = [done_s - self._durations_s[k] for done_s, k in self._jobs]
        under_way_s = [self._now_s - begun for begun in begun_s if begun < self._now_s]
        until_s = self._now_s + self._durations.deadline_s(under_way_s, math.inf)
        done_s = {}
        for k in nodes.tolist():
            begins_s = self._busy_until_s.get(k, self._now_s)
            done_s[k] = self._busy_until_s[k] = begins_s + float(self._durations_s[k])
            heapq.heappush(self._jobs, (done_s[k], k))
        self.at_work_max = max(self.at_work_max, len(self._busy_until_s))
        first = sorted(done_s, key=lambda k: done_s[k])[:enough]
        in_time = {k for k in first if done_s[k] <= until_s}
        self._now_s = done_s[first[-1]] if len(in_time) == enough else until_s
        while self._jobs and self._jobs[0][0] <= self._now_s:
            done_at_s, k = heapq.heappop(self._jobs)
            self._durations.observe(float(self._durations_s[k]))
            if self._busy_until_s[k] <= done_at_s:
                del self._busy_until_s[k]
        return self._now_s, [k for k in done_s if k in in_time]
