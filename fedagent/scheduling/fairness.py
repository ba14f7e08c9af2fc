"""A cap on how much more than its share a node works, around any scheduler.

    node i may be chosen only while jobs_i <= max_ratio x (jobs of all nodes / nodes present)

Asynchrony gives fast nodes more jobs, and a model that leans towards their data. The cap bounds
that, at a price: when every idle node is at its cap, its slot stays empty until another node comes
back. The node with the fewest jobs is never capped, so a run cannot stop for good.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.nodes.eligible import Eligible
from fedagent.nodes.idle import IdleNodes
from fedagent.scheduling.base import Assignment, Observation, Scheduler


class FairnessCap(Scheduler):
    """`inner` chooses among the nodes that have not had more than their share.

    A choice costs what `inner`'s costs while at most half of the idle nodes are capped, at worst
    one look at each (see `Eligible`). Nodes present are those idle and those at work; jobs of nodes
    that left still count, which loosens the cap.

    Parameters
    ----------
    inner : chooses, and sets B_k and M_k.
    max_ratio : >= 1; jobs of one node over the mean. 1 keeps all nodes within one job of each
        other at the pace of the slowest; infinity is `inner` alone.
    """

    def __init__(self, inner: Scheduler, max_ratio: float = 2.0) -> None:
        require(max_ratio >= 1, f"max_ratio={max_ratio} must be at least 1: a mean is a mean.")
        super().__init__(inner.local_steps, inner.learning_rate)
        self.generator = inner.generator
        self.inner, self._max_ratio = inner, max_ratio
        self._jobs: Counter[int] = Counter()
        self._total = 0
        self._at_work: Counter[int] = Counter()

    def jobs(self, node_id: int) -> int:
        """Return how many jobs a node has been given."""
        return self._jobs[node_id]

    def choose(self, idle: IdleNodes) -> int:
        """Return the inner scheduler's choice."""
        return self.inner.choose(idle)

    def assign(self, idle: IdleNodes, now_s: float) -> Assignment | None:
        """Return the inner scheduler's next job for a node that may have one."""
        if not idle:
            return None
        cap = self._cap(idle)
        job = self.inner.assign(Eligible(idle, lambda node: self._jobs[node] <= cap), now_s)
        if job is not None:
            self._count(job.node_id)
        return job

    @property
    def allows_prefetch(self) -> bool:
        """What the inner scheduler says."""
        return self.inner.allows_prefetch

    @property
    def forms_groups(self) -> bool:
        """What the inner scheduler says."""
        return self.inner.forms_groups

    def may_queue(self, node_id: int, idle: IdleNodes) -> bool:
        """Return whether a node at work is not above its cap either."""
        return self._jobs[node_id] <= self._cap(idle) and self.inner.may_queue(node_id, idle)

    def _cap(self, idle: IdleNodes) -> float:
        """Return with how many jobs at most a node may have another."""
        num_nodes = len(idle) + len(self._at_work)
        return self._max_ratio * self._total / num_nodes if self._total else 0.0

    def plan(self, node_id: int, now_s: float) -> Assignment:
        """Count a job more for a node at work; the inner scheduler plans it."""
        self._count(node_id)
        return self.inner.plan(node_id, now_s)

    def _count(self, node_id: int) -> None:
        self._jobs[node_id] += 1
        self._total += 1
        self._at_work[node_id] += 1

    def _discount(self, node_id: int) -> None:
        self._at_work[node_id] -= 1
        if self._at_work[node_id] <= 0:
            del self._at_work[node_id]

    def observe(self, observation: Observation) -> None:
        """Note that the node is free; the inner scheduler learns from its job."""
        self._discount(observation.node_id)
        self.inner.observe(observation)

    def lost(self, node_id: int) -> None:
        """Note that the node is not at work any more."""
        self._discount(node_id)
        self.inner.lost(node_id)

    def next_due_s(self) -> float:
        """Return when the inner scheduler wants to be asked again."""
        return self.inner.next_due_s()

    def state_dict(self) -> dict[str, Any]:
        """Return the inner scheduler's state and the jobs given out."""
        return {
            "inner": self.inner.state_dict(),
            "jobs": [[node, jobs] for node, jobs in self._jobs.items()],
            "at_work": sorted(self._at_work.elements()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state["inner"])
        self._jobs = Counter({int(node): int(jobs) for node, jobs in state["jobs"]})
        self._total = self._jobs.total()
        self._at_work = Counter(int(node) for node in state["at_work"])
