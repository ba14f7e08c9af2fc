"""Utility-based choice: the node with the most to teach goes first.

Oort, arXiv 2010.06081, and Pisces, arXiv 2206.09264, which discounts by staleness:

    U_k = n_k |loss_k| / (1 + mean of the last 5 tau_k)^beta

Oort's statistical utility is n_k sqrt(mean of squared sample losses); a client reports its mean
loss, which stands in for the root. Pisces divides by sum n, which changes no comparison. Speed is
left to staleness, as in Pisces: Oort's separate penalty for slow nodes is not there.

Both papers sort the population for every choice. Here the best of `candidates` random idle nodes
is taken, which costs the same for a million nodes: of n idle nodes, the choice is among the best
share x with probability 1 - (1 - x)^candidates (16: the best 17 % in 95 % of the choices).
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.nodes.idle import IdleNodes
from fedagent.scheduling.base import Observation, Scheduler

logger = logging.getLogger("flwr.fedagent")

_HISTORY = 5


class Utility(Scheduler):
    """The candidate with the highest utility; for a share of the choices one that is unknown.

    Parameters
    ----------
    metric : the client's training loss in its metrics. A node that reports no finite number stays
        unknown.
    beta : exponent >= 0 of the staleness discount; 0 for none.
    exploration : share in [0, 1] of the choices that look for a node not known yet (any random
        candidate if there is none). It also brings back nodes whose utility was low once. Pisces
        starts at 0.9 and decays to 0.3.
    candidates : random idle nodes that are compared, drawn with replacement; >= 1. 1 is `Uniform`.
    local_steps, learning_rate, seed : see `Scheduler`.
    """

    def __init__(
        self,
        metric: str = "train-loss",
        beta: float = 0.5,
        exploration: float = 0.3,
        candidates: int = 16,
        local_steps: int | None = None,
        learning_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(local_steps, learning_rate, seed)
        require(beta >= 0, f"beta={beta} must not be negative: stale nodes would be preferred.")
        require(0.0 <= exploration <= 1.0, f"exploration={exploration} must lie in [0, 1].")
        require(candidates >= 1, f"candidates={candidates} must be at least 1.")
        self._metric, self._beta = metric, beta
        self._exploration, self._candidates = exploration, candidates
        self._utility: dict[int, float] = {}
        self._staleness: dict[int, list[int]] = {}
        self._has_warned = False

    def utility(self, node_id: int) -> float | None:
        """Return U_k, or None for a node not known yet."""
        return self._utility.get(node_id)

    def choose(self, idle: IdleNodes) -> int:
        """Return the best candidate, or an unknown one when it is time to explore."""
        explores = self.generator.random() < self._exploration
        candidates = [idle.random(self.generator) for _ in range(self._candidates)]
        unknown = [node for node in candidates if node not in self._utility]
        if explores:
            return (unknown or candidates)[0]
        known = [node for node in candidates if node in self._utility]
        return max(known, key=self._utility.__getitem__) if known else unknown[0]

    def observe(self, observation: Observation) -> None:
        """Learn a node's utility from its loss, its number of examples and its staleness."""
        node_id = observation.node_id
        recent = [*self._staleness.get(node_id, []), observation.staleness][-_HISTORY:]
        self._staleness[node_id] = recent
        loss = observation.metrics.get(self._metric)
        if not isinstance(loss, (int, float)) or not math.isfinite(loss):
            self._warn(observation)
            return
        discount = (1.0 + sum(recent) / len(recent)) ** self._beta
        self._utility[node_id] = observation.num_examples * abs(loss) / discount

    def _warn(self, observation: Observation) -> None:
        if not self._has_warned:
            logger.warning(
                "Node %d reports no finite %r to judge its utility by (its metrics: %s). Have the "
                "ClientApp report its training loss, or set Utility(metric=...). Said only once.",
                observation.node_id,
                self._metric,
                ", ".join(sorted(observation.metrics)) or "none",
            )
        self._has_warned = True

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state, the utilities and the latest staleness."""
        return super().state_dict() | {
            "utility": [[node, utility] for node, utility in self._utility.items()],
            "staleness": [[node, list(recent)] for node, recent in self._staleness.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._utility = {int(node): float(utility) for node, utility in state["utility"]}
        self._staleness = {int(node): [int(t) for t in r] for node, r in state["staleness"]}
