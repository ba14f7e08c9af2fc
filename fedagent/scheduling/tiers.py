"""Tiers: nodes that are about equally fast work in rounds of their own.

    every node does one short job, and is ranked by how long it took:
        tier of rank r of N = floor(r M / N),    0 the fastest, M - 1 the slowest
    within a tier:    a round asks C nodes, chosen uniformly, and waits for all of them
    between tiers:    nobody waits

Chai et al., "FedAT", SC 2021, arXiv 2010.05958. The tiers are there as soon as all but the last of
them are known; a node that has not answered by then, or comes later, is placed by the slowest node
of every tier. A node's tier never changes after that.

Every round ends with C updates, or as many as the tier has nodes. For a job that came to nothing
another node of the tier is asked; if the round has asked all that are idle, and waits for none, one
is asked again.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from fedagent.errors import require
from fedagent.nodes.eligible import Eligible
from fedagent.nodes.idle import IdleNodes
from fedagent.scheduling.base import Assignment, Observation, Scheduler
from fedagent.update import Group


@dataclass
class _Tier:
    """A tier and its round under way.

    Attributes
    ----------
    number : 0 is the fastest.
    num_nodes : how many nodes it has.
    size : updates of the round under way; 0 between two rounds.
    num_received : how many of them have come.
    at_work, asked : nodes whose jobs are under way, and all that the round has asked.
    """

    number: int
    num_nodes: int = 0
    size: int = 0
    num_received: int = 0
    at_work: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)


class Tiers(Scheduler):
    """Random nodes of every tier, in rounds.

    A choice costs O(M) looks at idle nodes on average, whatever the population.

    Parameters
    ----------
    num_tiers : M >= 1.
    cohort : C >= 1, nodes of a tier's round; M x C nodes are at work at once.
    first_steps : B_k >= 1 of the job that ranks a node; None for as many as any other.
    local_steps, learning_rate, seed : see `Scheduler`.

    Attributes
    ----------
    tiers : node id -> its tier.
    """

    def __init__(
        self,
        num_tiers: int = 5,
        cohort: int = 10,
        first_steps: int | None = 1,
        local_steps: int | None = None,
        learning_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(local_steps, learning_rate, seed)
        require(num_tiers >= 1, f"Tiers: num_tiers={num_tiers} must be at least 1.")
        require(cohort >= 1, f"Tiers: cohort={cohort} must be at least 1: nobody would work.")
        require(
            first_steps is None or first_steps >= 1,
            f"Tiers: first_steps={first_steps} must be at least 1, or null.",
        )
        self._num_tiers, self._cohort, self._first_steps = num_tiers, cohort, first_steps
        self.tiers: dict[int, int] = {}
        self._ranking: dict[int, None] = {}  # nodes whose first job is under way
        self._seconds: dict[int, float] = {}  # of first jobs, until there are tiers
        self._limits: list[float] | None = None  # seconds of the slowest of every tier but the last
        self._share = 0  # nodes of a tier, when they were formed
        self._turns = [_Tier(number) for number in range(num_tiers)]  # longest unfinished first

    @property
    def allows_prefetch(self) -> bool:
        """No: a round asks every node once."""
        return False

    @property
    def forms_groups(self) -> bool:
        """Yes: a tier's round."""
        return True

    def choose(self, idle: IdleNodes) -> int:
        """Return a uniformly random idle node."""
        return idle.random(self.generator)

    def assign(self, idle: IdleNodes, now_s: float) -> Assignment | None:
        """Return a job of a tier's round, or of a node unknown; None while all rounds wait."""
        for accepts in self._wanted():
            if job := super().assign(Eligible(idle, accepts), now_s):
                return job
        return None

    def _wanted(self) -> Iterator[Callable[[int], bool]]:
        """Yield whom a job may go to, the best first."""
        if self._limits is None:
            yield self._is_new
            if not self._form():
                return
        for tier in self._turns:
            if not self._has_room(tier):
                continue
            yield partial(self._is_unasked, tier)
            if tier.asked and not tier.at_work:
                yield partial(self._is_in, tier)

    def _is_new(self, node_id: int) -> bool:
        known = self.tiers if self._limits is not None else self._seconds
        return node_id not in known and node_id not in self._ranking

    def _is_in(self, tier: _Tier, node_id: int) -> bool:
        """Whether a node is one of the tier, or unknown: those are found as rounds are filled."""
        return self.tiers.get(node_id) == tier.number or self._is_new(node_id)

    def _is_unasked(self, tier: _Tier, node_id: int) -> bool:
        return node_id not in tier.asked and self._is_in(tier, node_id)

    def _has_room(self, tier: _Tier) -> bool:
        if tier.size:
            return tier.num_received + len(tier.at_work) < tier.size
        is_complete = tier.num_nodes >= min(self._cohort, self._share) or not self._ranking
        return is_complete and tier.num_nodes > 0

    def _form(self) -> bool:
        """Form the tiers, if all but the last of them are known; say whether they are."""
        num_nodes = len(self._seconds) + len(self._ranking)
        num_tiers = self._num_tiers
        if not self._seconds or num_tiers * len(self._seconds) < (num_tiers - 1) * num_nodes:
            return False
        self._limits, self._share = [0.0] * (num_tiers - 1), num_nodes // num_tiers
        ranked = sorted(self._seconds, key=self._seconds.__getitem__)
        for rank, node_id in enumerate(ranked):
            number = rank * num_tiers // num_nodes
            self._place(node_id, number)
            for slower in range(number, num_tiers - 1):
                self._limits[slower] = self._seconds[node_id]
        self._seconds.clear()
        return True

    def _place(self, node_id: int, number: int) -> None:
        self.tiers[node_id] = number
        self._tier(number).num_nodes += 1

    def _tier(self, number: int) -> _Tier:
        return next(tier for tier in self._turns if tier.number == number)

    def plan(self, node_id: int, now_s: float) -> Assignment:
        """Return the job that ranks a node, or one of its tier's round."""
        if self._is_new(node_id):
            self._ranking[node_id] = None
            steps = self._first_steps or self.local_steps
            return Assignment(node_id, steps, self.learning_rate)
        if self._limits is None:  # where nothing is assigned: a run that goes on hears its jobs
            self._form()
        tier = self._tier(self.tiers[node_id])
        tier.size = tier.size or min(self._cohort, tier.num_nodes)
        tier.at_work.append(node_id)
        tier.asked.append(node_id)
        group = Group(tier.number, tier.size)
        return Assignment(node_id, self.local_steps, self.learning_rate, group=group)

    def observe(self, observation: Observation) -> None:
        """Find a node's tier, or count its update in the tier's round if the rule got it."""
        node_id, seconds = observation.node_id, observation.duration_s
        if node_id in self._ranking:
            del self._ranking[node_id]
            if self._limits is None:
                self._seconds[node_id] = seconds
            else:
                self._place(node_id, bisect_left(self._limits, seconds))
        elif (tier := self._end(node_id)) and observation.is_used:
            tier.num_received += 1
            if tier.num_received == tier.size:
                tier.size = tier.num_received = 0
                tier.asked.clear()
                self._turns.remove(tier)
                self._turns.append(tier)

    def lost(self, node_id: int) -> None:
        """Let another node take the place of this one."""
        if node_id in self._ranking:
            del self._ranking[node_id]
        else:
            self._end(node_id)

    def _end(self, node_id: int) -> _Tier | None:
        """End a node's job in its tier's round; None if it has none there."""
        for tier in self._turns:
            if node_id in tier.at_work:
                tier.at_work.remove(node_id)
                return tier
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state, who is in which tier, and the rounds under way."""
        return super().state_dict() | {
            "tiers": list(map(list, self.tiers.items())),
            "ranking": list(self._ranking),
            "seconds": list(map(list, self._seconds.items())),
            "limits": None if self._limits is None else list(self._limits),
            "share": self._share,
            "turns": [asdict(tier) for tier in self._turns],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.tiers = {int(node): int(tier) for node, tier in state["tiers"]}
        self._ranking = dict.fromkeys(state["ranking"])
        self._seconds = {int(node): float(seconds) for node, seconds in state["seconds"]}
        self._limits = None if state["limits"] is None else list(state["limits"])
        self._share = int(state["share"])
        self._turns = [_Tier(**tier) for tier in state["turns"]]
