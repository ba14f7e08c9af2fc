"""Which nodes are there, and which of them may work now: idle, busy, or resting after a failure.

Pure: the caller passes the time, in seconds on the run's clock.
"""

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable

from fedagent.nodes.backoff import Backoff
from fedagent.nodes.idle import IdleNodes
from fedagent.nodes.population import Population, PresentNodes


class Membership:
    """Every known node is idle, busy, or resting after a failure."""

    def __init__(self, backoff: Backoff) -> None:
        self.idle = IdleNodes()
        self._backoff = backoff
        self._known: range | dict[int, None] | Population = {}
        self._num_present = 0
        self._jobs: Counter[int] = Counter()  # at work, with so many jobs
        self._overdue: Counter[int] = Counter()  # of these jobs, those that nobody heard of in time
        self._failures: dict[int, int] = {}
        self._resting: dict[int, float] = {}
        self._wake_ups: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return self._num_present

    def __contains__(self, node_id: object) -> bool:
        """Return whether a node is there now."""
        return node_id in self._known

    @property
    def nodes(self) -> Iterable[int]:
        """The nodes that are there, as they were last seen."""
        return self._known

    def refresh(self, nodes: Iterable[int] | Population) -> None:
        """Take over which nodes are there now: newcomers are idle, vanished nodes get no work.

        A range that does not change costs nothing, however many nodes it describes, and a
        population only what it was asked since.
        """
        if nodes == self._known:
            return
        if isinstance(nodes, Population):
            self._look(nodes)
        elif isinstance(nodes, range) and not self._known:
            self._known, self._num_present = nodes, len(nodes)
            self._begin()
        else:
            self._compare(dict.fromkeys(nodes))

    def _begin(self) -> None:
        self.idle = _all_of(self._known)
        for node_id in (*self._jobs, *self._resting):
            self.idle.discard(node_id)

    def _look(self, population: Population) -> None:
        self._known, self._num_present = population, population.count()
        if not isinstance(self.idle, PresentNodes):
            self._begin()
            return
        for node_id in self.idle.look(population):
            self._rejoin(node_id)
        for node_id in [n for n in self._overdue if n not in population]:
            self._start_afresh(node_id)

    def _compare(self, present: dict[int, None]) -> None:
        vanished = [n for n in self._known if n not in present]
        joined = [n for n in present if n not in self._known]
        self._known, self._num_present = present, len(present)
        for node_id in vanished:
            self.idle.discard(node_id)
            if node_id in self._overdue:
                self._start_afresh(node_id)
        for node_id in joined:
            self._rejoin(node_id)

    def _start_afresh(self, node_id: int) -> None:
        """Forget what a node that has left was stuck in: it is free when it is back."""
        _take_off(self._jobs, node_id, self._overdue.pop(node_id))
        self._rejoin(node_id)

    @property
    def num_at_work(self) -> int:
        """Nodes with a job, those that are overdue included."""
        return len(self._jobs)

    def take(self, node_id: int) -> None:
        """Give a node a job: it is busy until all of its jobs are released."""
        self.idle.discard(node_id)
        self._jobs[node_id] += 1

    def release(
        self, node_id: int, now_s: float, succeeded: bool | None = None, is_late: bool = False
    ) -> None:
        """End a job. A node without any is idle again: after a rest if it failed, else at once.

        None means that the node did nothing that tells how well it works. A job that `is_late` was
        overdue; one that was forgotten meanwhile ends nothing. Any other is done after those that
        are overdue, since a node does one after the other: these end with it.
        """
        if not is_late:
            _take_off(self._jobs, node_id, 1 + self._overdue.pop(node_id, 0))
        elif node_id in self._overdue:
            _take_off(self._overdue, node_id, 1)
            _take_off(self._jobs, node_id, 1)
        else:
            return
        if succeeded:
            self._failures.pop(node_id, None)
        elif succeeded is False:
            self._failures[node_id] = self._failures.get(node_id, 0) + 1
            until_s = now_s + self._backoff.wait_s(self._failures[node_id])
            self._resting[node_id] = until_s
            heapq.heappush(self._wake_ups, (until_s, node_id))
        self._rejoin(node_id)

    def overdue(self, node_id: int) -> None:
        """Keep a node busy whose dispatch expired: it gets nothing new until it is heard of."""
        self._overdue[node_id] += 1
        if node_id not in self._known:
            self._start_afresh(node_id)

    def failing(self) -> Iterable[int]:
        """Return the nodes whose last job failed, or that are overdue with something."""
        return (*self._failures, *self._overdue)

    def may_queue(self, node_id: int) -> bool:
        """Return whether a busy node may be given a job more."""
        is_well = node_id not in self._resting and node_id not in self._overdue
        return is_well and node_id in self._known

    def reachable(self) -> IdleNodes:
        """Return the nodes that are there and not overdue with something, at work or not."""
        nodes = _all_of(self._known)
        for node_id in self._overdue:
            nodes.discard(node_id)
        return nodes

    def wake(self, now_s: float) -> None:
        """Make nodes idle whose rest is over."""
        while self._wake_ups and self._wake_ups[0][0] <= now_s:
            until_s, node_id = heapq.heappop(self._wake_ups)
            if self._resting.get(node_id) == until_s:
                del self._resting[node_id]
                self._rejoin(node_id)

    def next_wake_s(self) -> float:
        """Return when the next rest is over, or infinity."""
        return self._wake_ups[0][0] if self._wake_ups else math.inf

    def _rejoin(self, node_id: int) -> None:
        is_free = node_id not in self._jobs and node_id not in self._resting
        if is_free and node_id in self.registered:
            self.idle.add(node_id)

    @property
    def registered(self) -> Collection[int]:
        """Nodes that may be idle; a population leaves out by itself those that are not there."""
        known = self._known
        return known.registered if isinstance(known, Population) else known


def _take_off(counts: Counter[int], node_id: int, number: int) -> None:
    counts[node_id] -= number
    if counts[node_id] <= 0:
        del counts[node_id]


def _all_of(known: range | dict[int, None] | Population) -> IdleNodes:
    if isinstance(known, Population):
        return PresentNodes(known)
    if isinstance(known, range):
        return IdleNodes(known)
    nodes = IdleNodes()
    for node_id in known:
        nodes.add(node_id)
    return nodes
