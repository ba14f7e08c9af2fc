"""Asynchronous training as a pure loop: rules, schedulers and ledger, no messages.

What benchmarks compare are algorithms, thousands of runs of them; through Flower messages each
update would cost several times the training itself. `tests/benchmarks/test_convergence.py` holds
it, and `rounds`, to the real engine's results.
"""

import heapq
import math

import numpy as np
import torch

from benchmarks.convergence.trace import Budget, Problem, Trace
from fedagent.model import FlatModel, ModelSpec
from fedagent.proxy.ledger import Ledger, Version
from fedagent.rules import AREA, Rule
from fedagent.scheduling import IdleNodes, Observation, Scheduler
from fedagent.statistics import Statistics
from fedagent.update import Dispatch, Kind, Update


def asynchronous(
    problem: Problem,
    rule: Rule,
    scheduler: Scheduler,
    seconds_per_step: np.ndarray,
    *,
    concurrency: int,
    local_steps: int,
    learning_rate: float,
    seed: int,
    budget: Budget,
    phases: np.ndarray | None = None,
) -> Trace:
    """Train as the proxy does: a free slot gets work at once, an update is applied when it comes.

    Jobs take ``steps * seconds_per_step``; a node's first job takes the part of it that `phases`
    says, (K,) in (0, 1]. What arrives at the same moment is taken in order of dispatch, before
    anybody gets new work.
    """
    first = np.ones(problem.num_nodes) if phases is None else phases
    fleet = _Fleet(problem, scheduler, seconds_per_step, concurrency, local_steps, first.tolist())
    rng, clients = np.random.default_rng(seed), _Clients(rule)
    start = problem.initial(seed)
    arrays = problem.arrays(start)
    model = FlatModel(ModelSpec.of(arrays), arrays)
    fleet.ledger.publish(Version(0, model.vector.clone(), None))
    trace = Trace(problem.target, statistics=fleet.statistics)
    trace.add(problem, model.vector.numpy())
    next_score = 0
    while (dispatch := fleet.next_arrival(model.version, budget.seconds)) is not None:
        base, staleness = fleet.ledger.base(dispatch).vector, fleet.ledger.staleness(dispatch)
        steps, node = dispatch.local_steps or local_steps, dispatch.node_id
        delta = clients.work(problem, node, base.numpy(), steps, learning_rate, rng)
        update = Update(
            node,
            torch.from_numpy(delta),
            base,
            staleness,
            num_examples=float(problem.weights[node]),
            duration_s=fleet.settle(dispatch),
            local_steps=steps,
        )
        if rule.rejection(update) is not None:
            continue
        fleet.statistics.received(staleness, update.duration_s)
        is_published = rule.receive(model, update)
        clients.applied(node)
        if is_published:
            model.version += 1
            fleet.ledger.publish(Version(model.version, model.vector.clone(), None))
        is_over = fleet.statistics.num_updates >= budget.updates
        if is_over or (is_published and fleet.statistics.num_updates >= next_score):
            next_score = fleet.statistics.num_updates + budget.score_every
            goes_on = trace.add(problem, model.vector.numpy())
            if is_over or not goes_on or (budget.at_target and trace.is_at_target):
                break
    trace.vector = model.vector.numpy().copy()
    return trace


class _Fleet:
    """Who works on what until when."""

    def __init__(
        self,
        problem: Problem,
        scheduler: Scheduler,
        seconds_per_step: np.ndarray,
        concurrency: int,
        local_steps: int,
        first: list[float],
    ) -> None:
        self.ledger = Ledger()
        self.statistics = Statistics(is_virtual=True, concurrency=concurrency)
        self._problem, self._scheduler = problem, scheduler
        self._seconds_per_step, self._local_steps = seconds_per_step, local_steps
        self._part_of_next_job = first
        self._idle = IdleNodes()
        for node in range(problem.num_nodes):
            self._idle.add(node)
        self._arrivals: list[tuple[float, int]] = []  # (seconds, job)
        self._num_jobs = 0

    def next_arrival(self, version: int, until_s: float) -> Dispatch | None:
        """Give free slots work on `version`; return who arrives next, None if after `until_s`."""
        while True:
            # What arrives at the same moment is one poll: all of it is taken, then work goes out.
            if not self._arrivals or self._arrivals[0][0] > self.statistics.now_s:
                self._fill_slots(version)
            arrival_s = self._arrivals[0][0] if self._arrivals else math.inf
            has_room = self.statistics.in_flight < self.statistics.concurrency
            due_s = self._scheduler.next_due_s() if has_room else math.inf
            if not self.statistics.now_s < due_s < arrival_s:
                break
            self.statistics.now_s = due_s  # a slot that was left empty is offered again
        if arrival_s > until_s:
            return None
        self.statistics.now_s = arrival_s
        _, job = heapq.heappop(self._arrivals)
        return self.ledger.get(str(job))

    def _fill_slots(self, version: int) -> None:
        statistics = self.statistics
        while statistics.in_flight < statistics.concurrency:
            job = self._scheduler.assign(self._idle, statistics.now_s)
            if job is None:
                return
            self._idle.discard(job.node_id)
            steps = job.local_steps or self._local_steps
            now_s, number = statistics.now_s, self._num_jobs
            self.ledger.open(
                Dispatch(str(number), job.node_id, version, "", now_s, math.inf, local_steps=steps)
            )
            statistics.dispatched(Kind.TRAIN, 0)
            duration_s = steps * float(self._seconds_per_step[job.node_id])
            duration_s *= self._part_of_next_job[job.node_id]
            self._part_of_next_job[job.node_id] = 1.0
            heapq.heappush(self._arrivals, (now_s + duration_s, number))
            self._num_jobs += 1

    def settle(self, dispatch: Dispatch) -> float:
        """Free the slot of a job that has arrived; return how many seconds it took."""
        staleness = self.ledger.staleness(dispatch)
        self.ledger.settle(dispatch.message_id)
        self._idle.add(dispatch.node_id)
        duration_s = self.statistics.now_s - dispatch.sent_at_s
        self.statistics.in_flight -= 1
        self.statistics.busy_s += duration_s
        weight = float(self._problem.weights[dispatch.node_id])
        self._scheduler.observe(
            Observation(dispatch.node_id, dispatch.local_steps, duration_s, staleness, weight)
        )
        return duration_s


class _Clients:
    """The nodes' side: it remembers something only for AREA, whose clients send differences."""

    def __init__(self, rule: Rule) -> None:
        self._sends_differences = isinstance(rule, AREA)
        self._sent: dict[int, np.ndarray] = {}
        self._applied: set[int] = set()
        self._last: tuple[int, np.ndarray] | None = None

    def work(
        self,
        problem: Problem,
        node: int,
        base: np.ndarray,
        steps: int,
        rate: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        delta = problem.work(node, base, steps, rate, rng)
        if not self._sends_differences:
            return delta
        mine = base + delta
        difference = mine - self._sent[node] if node in self._applied else delta
        self._sent[node] = mine
        return difference

    def applied(self, node: int) -> None:
        self._applied.add(node)
