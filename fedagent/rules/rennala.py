r"""Rennala SGD: a minibatch of fresh updates, whoever sends them.

    tau_i > 0:            refused, and the node starts over from the newest version
    after S fresh ones:   x <- x + (eta / S) sum_i Delta_i

Tyurin, Richtarik, "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a
Fixed Computation Model", arXiv 2305.12387 (Rennala SGD). All S updates start from the same version,
so nothing is ever stale; fast nodes contribute several times, which suits data that is alike
everywhere (`Malenia` is for data that is not).

By the clock (``buffer_size=None``) S is whatever came fresh in a period. A batch of fixed size that
fills within a period would move the model under the feet of the next one, so it allows no clock.
"""

import torch

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import too_stale
from fedagent.rules.buffered import BufferedRule
from fedagent.update import Rejection, Update


class Rennala(BufferedRule):
    """Rennala's server rule.

    Parameters
    ----------
    buffer_size : S >= 1, fresh updates per published version; None leaves publishing to the clock.
    server_learning_rate : eta > 0; 1 takes the batch's mean step.
    """

    def __init__(self, buffer_size: int | None = 10, server_learning_rate: float = 1.0) -> None:
        super().__init__(buffer_size)
        require(
            server_learning_rate > 0,
            f"Rennala: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.server_learning_rate = server_learning_rate

    @property
    def allows_clock(self) -> bool:
        """Only without a size, when a batch is what one version brings."""
        return self.needs_clock

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse what did not start from the current version."""
        return too_stale(update) if update.staleness else None

    def step(self, model: FlatModel, mean: torch.Tensor) -> None:
        """Apply x <- x + eta mean."""
        model.vector.add_(mean, alpha=self.server_learning_rate)
