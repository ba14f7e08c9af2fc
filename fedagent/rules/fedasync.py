r"""FedAsync: mix every arriving client model into the global model.

    x <- (1 - alpha_t) x + alpha_t y_i,    alpha_t = alpha s(tau_i)

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", arXiv 1903.03934, Algorithm 1. A new
version is published on every arrival. alpha stays what it is: s(tau) never compounds into it.
"""

from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.rules.base import Rule
from fedagent.rules.staleness import Staleness, polynomial, validated
from fedagent.update import Update


class FedAsync(Rule):
    """FedAsync's server rule.

    Parameters
    ----------
    alpha : mixing rate in (0, 1]; 1 replaces the global model by a fresh client model.
    staleness : s(tau), 1 for a fresh update.
    """

    def __init__(self, alpha: float = 0.6, staleness: Staleness = polynomial) -> None:
        require(0.0 < alpha <= 1.0, f"FedAsync: alpha={alpha} must lie in (0, 1].")
        self.alpha = alpha
        self.staleness = validated(staleness)

    def discount(self, staleness: int) -> float:
        """Return s(tau)."""
        return self.staleness(staleness)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Apply x <- (1 - alpha_t) x + alpha_t y, where y = base + delta."""
        alpha_t = self.alpha * self.staleness(update.staleness)
        for x, delta, base in blocks(model.vector, update.delta, update.base):
            x.lerp_(base, alpha_t).add_(delta, alpha=alpha_t)
        model.carry(update.carried, update.staleness)
        return True
