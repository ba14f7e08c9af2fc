r"""Ringmaster ASGD: asynchronous SGD that ignores what comes too late.

    tau_i < R:    x <- x + eta Delta_i
    tau_i >= R:   refused, and the node starts over from the newest version

Maranjyan, Tyurin, Richtarik, "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time
Complexity", arXiv 2501.16168, Algorithm 4 (without calculation stops). The theory takes
R = max(1, sigma^2 / epsilon): the noisier the gradients and the higher the accuracy asked for, the
later an update is still welcome. R = 1 takes fresh updates only; without R it is `ASGD`.
"""

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule, too_stale
from fedagent.update import Rejection, Update


class Ringmaster(Rule):
    """Ringmaster's server rule.

    Parameters
    ----------
    max_staleness : R >= 1, the first staleness that is refused; None accepts everything.
    server_learning_rate : eta > 0.
    """

    def __init__(self, max_staleness: int | None = None, server_learning_rate: float = 1.0) -> None:
        require(
            max_staleness is None or max_staleness >= 1,
            f"Ringmaster: max_staleness={max_staleness} must be at least 1, or null: with 0 even "
            "a fresh update is refused.",
        )
        require(
            server_learning_rate > 0,
            f"Ringmaster: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.max_staleness = max_staleness
        self.server_learning_rate = server_learning_rate

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse tau >= R."""
        is_late = self.max_staleness is not None and update.staleness >= self.max_staleness
        return too_stale(update) if is_late else None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Apply x <- x + eta Delta."""
        model.vector.add_(update.delta, alpha=self.server_learning_rate)
        model.carry(update.carried, update.staleness)
        return True
