r"""What releases have cost each node, in the currency in which Gaussian noise adds up exactly.

A release that holds a node's contribution of norm at most w C under noise of standard deviation z C
is mu-Gaussian differentially private for that node with mu = w / z, and releases compose as

    mu^2 = sum of the releases' mu^2,    also where a later one depends on the earlier ones

(Dong, Roth, Su, "Gaussian Differential Privacy", arXiv 1905.02383, Corollary 3.3). epsilon at a
delta follows in closed form (Balle, Wang, arXiv 1805.06530, Theorem 8), here through dp-accounting.
Nothing is gained from chance: who is in a release is decided by who is fast, which is no secret.
"""

import math
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr
from typing import Any

from fedagent.errors import imported, require


class Accountant:
    """mu^2 that each node has spent, and the epsilon of the node that has spent most.

    Parameters
    ----------
    delta : in (0, 1); less than one over the number of nodes.
    epsilon_budget : > 0, what no node may exceed; None for no limit.

    Raises
    ------
    DataUnavailableError
        If dp-accounting is not installed.
    """

    def __init__(self, delta: float, epsilon_budget: float | None = None) -> None:
        require(0 < delta < 1, f"delta={delta} must lie in (0, 1), below 1 / number of nodes.")
        require(
            epsilon_budget is None or epsilon_budget > 0,
            f"epsilon_budget={epsilon_budget} must be positive: nobody could ever take part.",
        )
        self.delta, self.epsilon_budget = delta, epsilon_budget
        sigma = None if epsilon_budget is None else sigma_of(epsilon_budget, delta)
        self._limit = math.inf if sigma is None else sigma**-2
        self._spent: dict[int, float] = {}

    def spent(self, node_id: int) -> float:
        """Return the mu^2 of a node."""
        return self._spent.get(node_id, 0.0)

    def can_afford(self, node_id: int, cost: float) -> bool:
        """Return whether a node may spend `cost`, mu^2, without exceeding the budget."""
        return self.spent(node_id) + cost <= self._limit * (1 + 1e-12)  # of rounding

    def charge(self, node_id: int, cost: float) -> None:
        """Let a node pay `cost`, mu^2."""
        self._spent[node_id] = self.spent(node_id) + cost

    def epsilon(self, node_id: int | None = None) -> float:
        """Return epsilon of a node, by default the largest of all nodes; 0 if it paid nothing."""
        mu_squared = (
            max(self._spent.values(), default=0.0) if node_id is None else self.spent(node_id)
        )
        return epsilon_of(math.sqrt(mu_squared), self.delta)

    @property
    def nodes(self) -> Mapping[int, float]:
        """mu^2 by node, of those that have paid."""
        return self._spent

    def state_dict(self) -> dict[str, Any]:
        """Return what nodes have paid."""
        return {"spent": {str(node_id): cost for node_id, cost in self._spent.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self._spent = {int(node_id): float(cost) for node_id, cost in state["spent"].items()}


def epsilon_of(mu: float, delta: float) -> float:
    """Return epsilon at `delta` of a mu-Gaussian differentially private mechanism."""
    return 0.0 if mu == 0 else float(_library().get_epsilon_gaussian(1.0 / mu, delta))


def sigma_of(epsilon: float, delta: float) -> float:
    """Return the noise, over the sensitivity, of one Gaussian release at (`epsilon`, `delta`)."""
    return float(_library().get_sigma_gaussian(epsilon, delta))


def noise_multiplier_for(epsilon: float, delta: float, num_releases: int) -> float:
    """Return z with which a node may be in `num_releases` releases within (`epsilon`, `delta`)."""
    require(num_releases >= 1, f"num_releases={num_releases} must be at least 1.")
    return math.sqrt(num_releases) * sigma_of(epsilon, delta)


def _library() -> Any:
    # It brings absl, whose log handler takes the standard error that it finds, and closes it one
    # day, unless that is the process's own.
    with redirect_stderr(sys.__stderr__):
        return imported("dp_accounting", "fedagent[privacy]", "Accounting for differential privacy")
