r"""Delayed Nesterov: every update moves the model, only every N-th moves the momentum.

    on each arrival:   x <- x + (eta / N) Delta_i
    on every N-th:     m <- beta m + (1/N) sum of the last N Delta,    x <- x + eta beta m

Liu et al., "Asynchronous Local-SGD Training for Language Modeling", arXiv 2401.09135, Algorithm 3
with c = 0 (no momentum between the N-th arrivals). Over N arrivals the model moves by
eta (mean + beta m), one step of Nesterov momentum on their mean; applied on every arrival, momentum
would amplify stale directions N times as often. beta = 0 is `ASGD` with eta / N.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.buffer import Buffer
from fedagent.update import Update


class DelayedNesterov(Rule):
    """Delayed Nesterov's server rule.

    Parameters
    ----------
    period : N >= 1, arrivals per momentum step; about the number of nodes at work.
    momentum : beta in [0, 1).
    server_learning_rate : eta > 0; 1 moves the model by the mean step every N arrivals.
    """

    def __init__(
        self, period: int = 10, momentum: float = 0.9, server_learning_rate: float = 1.0
    ) -> None:
        require(period >= 1, f"DelayedNesterov: period={period} must be at least 1.")
        require(0 <= momentum < 1, f"DelayedNesterov: momentum={momentum} must lie in [0, 1).")
        require(
            server_learning_rate > 0,
            f"DelayedNesterov: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.period = period
        self.momentum = momentum
        self.server_learning_rate = server_learning_rate
        self._buffer = Buffer()
        self._velocity: torch.Tensor | None = None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Apply (eta / N) Delta; on every N-th arrival the momentum step as well."""
        model.vector.add_(update.delta, alpha=self.server_learning_rate / self.period)
        model.carry(update.carried, update.staleness)
        self._buffer.add(update.delta)
        if len(self._buffer) == self.period:
            if self._velocity is None:
                self._velocity = torch.zeros_like(model.vector)
            self._velocity.mul_(self.momentum).add_(self._buffer.take())
            model.vector.add_(self._velocity, alpha=self.server_learning_rate * self.momentum)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum, and the arrivals since its last step."""
        velocity = self._velocity
        return {
            "buffer": self._buffer.state_dict(),
            "velocity": None if velocity is None else velocity.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        velocity = state["velocity"]
        self._buffer.load_state_dict(state["buffer"])
        self._velocity = None if velocity is None else velocity.clone()
