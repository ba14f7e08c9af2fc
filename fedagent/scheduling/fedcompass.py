"""FedCompass: jobs sized so that a group of nodes arrives together.

Li et al., ICLR 2024, arXiv 2309.14675; checked against the authors' APPFL, compass_scheduler.py.

A group g has an expected arrival time T_g and a latest one L_g. A free node i with c_i seconds per
step

    joins    the group that gives it the most steps, of those with
             Q_min <= B_i = floor((T_g - now) / c_i) <= Q_max;
    creates  one otherwise, so that it can meet the *next* round of a group under way:
             B_i = max over groups of floor((L_g + Q_max c_fastest(g) - now) / c_i), those above
             Q_max left out, at least Q_min; Q_max if there is none. Then
             T_g = now + B_i c_i  and  L_g = now + lambda B_i c_i.

A member that has arrived gets nothing new before the whole group is there or L_g has passed: all
start again from the version that their updates made. A node that comes after L_g is on its own at
once.
A node of unknown speed does Q_min steps, in no group.

Two departures. The authors serve the members of a finished group fastest first; here the order of
choice belongs to fairness, so a node slower than the fastest one known never falls back to Q_max
but to what it would get if the fastest had just created its group. And the authors' server
aggregates per group; here the rule decides: take a buffer of about the group's size.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedagent.errors import require
from fedagent.nodes.eligible import Eligible
from fedagent.nodes.idle import IdleNodes
from fedagent.scheduling.base import Assignment, Observation, Scheduler
from fedagent.scheduling.speed import Speeds

_ROUNDING = 1e-9  # steps; a sum of times must not cost the step that it fits exactly


@dataclass
class Group:
    """Nodes that are meant to arrive together.

    Attributes
    ----------
    arrives_s, latest_s : T_g and L_g, on the run's clock.
    fastest : smallest seconds per step of its members when they joined.
    expected, arrived : node ids.
    """

    arrives_s: float
    latest_s: float
    fastest: float
    expected: list[int] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)

    def add(self, node_id: int, seconds_per_step: float) -> None:
        """Expect one more node."""
        self.expected.append(node_id)
        self.fastest = min(self.fastest, seconds_per_step)


class FedCompass(Scheduler):
    """Random nodes, with as many steps as fit before their group arrives.

    A choice costs O(groups under way), at most the nodes at work and in practice a few; nothing
    grows with the population.

    Parameters
    ----------
    min_steps, max_steps : Q_min and Q_max; their ratio is the largest difference in speed within a
        group.
    slack : lambda >= 1, the latest over the expected duration of a group.
    ema : weight of the newest job in a node's speed, see `Speeds`.
    learning_rate, seed : see `Scheduler`.
    """

    def __init__(
        self,
        min_steps: int = 20,
        max_steps: int = 100,
        slack: float = 1.5,
        ema: float = 0.9,
        learning_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, seed=seed)
        require(
            1 <= min_steps <= max_steps,
            f"FedCompass: need 1 <= min_steps <= max_steps, not {min_steps} and {max_steps}.",
        )
        require(slack >= 1, f"slack={slack} must be at least 1: no group would ever be on time.")
        self._min_steps, self._max_steps, self._slack = min_steps, max_steps, slack
        self.speeds = Speeds(ema)
        self._groups: list[Group] = []
        self._group_of: dict[int, Group] = {}

    @property
    def allows_prefetch(self) -> bool:
        """No: a group is made of nodes that arrive together, each with one job."""
        return False

    @property
    def groups(self) -> list[Group]:
        """The groups under way, oldest first."""
        return list(self._groups)

    def choose(self, idle: IdleNodes) -> int:
        """Return a uniformly random idle node."""
        return idle.random(self.generator)

    def assign(self, idle: IdleNodes, now_s: float) -> Assignment | None:
        """Return the next job; None while every idle node waits for its group."""
        self._give_up(now_s)
        return super().assign(Eligible(idle, lambda node: node not in self._group_of), now_s)

    def plan(self, node_id: int, now_s: float) -> Assignment:
        """Return as many steps as fit before a group arrives; join or create that group."""
        self._give_up(now_s)  # where nothing is assigned: a run that goes on hears its jobs
        seconds = self.speeds.seconds_per_step(node_id)
        if seconds is None:
            return Assignment(node_id, self._min_steps, self.learning_rate)
        group, steps = self._best_to_join(seconds, now_s)
        if group is None:
            steps = self._steps_of_new_group(seconds, now_s)
            duration_s = steps * seconds
            group = Group(now_s + duration_s, now_s + self._slack * duration_s, seconds)
            self._groups.append(group)
        group.add(node_id, seconds)
        self._group_of[node_id] = group
        return Assignment(node_id, steps, self.learning_rate)

    def observe(self, observation: Observation) -> None:
        """Learn the node's speed; set its group free if it was the last to arrive."""
        self.speeds.observe(observation.node_id, observation.local_steps, observation.duration_s)
        self._arrived(observation.node_id, waits=True)

    def lost(self, node_id: int) -> None:
        """Expect the node no longer."""
        self._arrived(node_id, waits=False)

    def next_due_s(self) -> float:
        """Return when the next group that somebody waits for is given up."""
        return min((g.latest_s for g in self._groups if g.arrived), default=math.inf)

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state, the speeds and the groups under way."""
        return super().state_dict() | {
            "speeds": self.speeds.state_dict(),
            "groups": [asdict(group) for group in self._groups],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.speeds.load_state_dict(state["speeds"])
        self._groups = [Group(**group) for group in state["groups"]]
        self._group_of = {n: g for g in self._groups for n in (*g.expected, *g.arrived)}

    def _steps(self, until_s: float, now_s: float, seconds: float) -> int:
        return math.floor((until_s - now_s) / seconds + _ROUNDING)

    def _best_to_join(self, seconds: float, now_s: float) -> tuple[Group | None, int]:
        best, most = None, self._min_steps - 1
        for group in self._groups:
            steps = self._steps(group.arrives_s, now_s, seconds)
            if most < steps <= self._max_steps:
                best, most = group, steps
        return best, most

    def _steps_of_new_group(self, seconds: float, now_s: float) -> int:
        fits = [
            steps
            for group in self._groups
            if (steps := self._steps(self._next_round_s(group), now_s, seconds)) <= self._max_steps
        ]
        if not fits:
            fits = [self._steps_beside_the_fastest(seconds, now_s)]
        return max(self._min_steps, *fits)

    def _next_round_s(self, group: Group) -> float:
        return group.latest_s + self._max_steps * group.fastest

    def _steps_beside_the_fastest(self, seconds: float, now_s: float) -> int:
        """Return B_i as if the fastest node known had just created the only group."""
        fastest = self.speeds.fastest() or seconds
        duration_s = self._max_steps * fastest
        group = Group(now_s + duration_s, now_s + self._slack * duration_s, fastest)
        steps = self._steps(group.arrives_s, now_s, seconds)
        if steps >= self._min_steps:
            return min(steps, self._max_steps)
        return min(self._max_steps, self._steps(self._next_round_s(group), now_s, seconds))

    def _arrived(self, node_id: int, waits: bool) -> None:
        group = self._group_of.get(node_id)
        if group is None or node_id not in group.expected:
            return
        group.expected.remove(node_id)
        if waits:
            group.arrived.append(node_id)
        else:
            del self._group_of[node_id]
        if not group.expected:
            self._disband(group)

    def _give_up(self, now_s: float) -> None:
        """Wait no longer for groups whose latest time has passed."""
        for group in [g for g in self._groups if g.latest_s <= now_s]:
            self._disband(group)

    def _disband(self, group: Group) -> None:
        self._groups.remove(group)
        for node_id in (*group.expected, *group.arrived):
            self._group_of.pop(node_id, None)
