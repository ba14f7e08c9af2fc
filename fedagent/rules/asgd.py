r"""Asynchronous SGD: apply every update the moment it arrives.

    x <- x + eta s(tau_i) Delta_i

s = 1 is plain asynchronous SGD. With s(tau) = n / max(n, tau), n the concurrency, it is the
delay-adaptive variant of Mishchenko et al., "Asynchronous SGD Beats Minibatch SGD Under Arbitrary
Delays", arXiv 2206.07638, and Koloskova, Stich, Jaggi, "Sharper Convergence Guarantees for
Asynchronous SGD for Distributed and Federated Learning", arXiv 2206.08307: the step eta shrinks to
eta n / tau where tau exceeds n. Every arrival publishes, so tau counts arrivals.
"""

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.staleness import Staleness, constant, validated
from fedagent.update import Update


class ASGD(Rule):
    """Asynchronous SGD's server rule.

    Parameters
    ----------
    server_learning_rate : eta > 0; n nodes together move the model n eta times their mean step.
    staleness : s(tau), 1 for a fresh update; ``partial(delay_adaptive, concurrency=n)`` adapts the
        step to the delay.
    """

    def __init__(self, server_learning_rate: float = 1.0, staleness: Staleness = constant) -> None:
        require(
            server_learning_rate > 0,
            f"ASGD: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.server_learning_rate = server_learning_rate
        self.staleness = validated(staleness)

    def discount(self, staleness: int) -> float:
        """Return s(tau)."""
        return self.staleness(staleness)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Apply x <- x + eta s(tau) Delta."""
        weight = self.staleness(update.staleness)
        model.vector.add_(update.delta, alpha=self.server_learning_rate * weight)
        model.carry(update.carried, update.staleness)
        return True
