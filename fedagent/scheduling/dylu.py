"""DyLU, dynamic local updates: every node works equally long (Liu et al., arXiv 2401.09135, 4.2).

    B_i = floor(H v_i / v_max), at least 1;    v_i = 1 / c_i steps per second

The fastest node does H steps, the others as many as they manage in that time, so staleness evens
out. A node more than H times slower than the fastest still does one step and takes longer. Updates
of unequal B_i are of unequal length: FedNova-style correction is the rule's business.
"""

from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.nodes.idle import IdleNodes
from fedagent.scheduling.base import Assignment, Observation, Scheduler
from fedagent.scheduling.speed import Speeds


class DyLU(Scheduler):
    """Random nodes, with a number of steps proportional to their speed; O(1) per choice.

    Parameters
    ----------
    max_steps : H >= 1, steps of the fastest node.
    first_steps : steps of a node's first job, which is how its speed becomes known.
    ema : weight of the newest job in a node's speed, see `Speeds`.
    learning_rate, seed : see `Scheduler`.
    """

    def __init__(
        self,
        max_steps: int = 50,
        first_steps: int = 1,
        ema: float = 0.9,
        learning_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, seed=seed)
        require(
            1 <= first_steps <= max_steps,
            f"DyLU: need 1 <= first_steps <= max_steps, not {first_steps} and {max_steps}.",
        )
        self._max_steps, self._first_steps = max_steps, first_steps
        self.speeds = Speeds(ema)

    def choose(self, idle: IdleNodes) -> int:
        """Return a uniformly random idle node."""
        return idle.random(self.generator)

    def plan(self, node_id: int, now_s: float) -> Assignment:
        """Return as many steps as the node does while the fastest does H."""
        seconds, fastest = self.speeds.seconds_per_step(node_id), self.speeds.fastest()
        if seconds is None or fastest is None:
            return Assignment(node_id, self._first_steps, self.learning_rate)
        # The tolerance keeps a ratio such as 50 x (0.02 / 0.1) from losing a step to rounding.
        steps = int(self._max_steps * fastest / seconds + 1e-9)
        return Assignment(node_id, max(1, steps), self.learning_rate)

    def observe(self, observation: Observation) -> None:
        """Learn the node's speed."""
        self.speeds.observe(observation.node_id, observation.local_steps, observation.duration_s)

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state and the speeds."""
        return super().state_dict() | {"speeds": self.speeds.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.speeds.load_state_dict(state["speeds"])
