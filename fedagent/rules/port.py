r"""PORT: weigh updates by how fresh they are and by whether they point where the model went.

    after K updates:   x <- x + (sum_i p_i Delta_i) / (sum_i p_i)
                       p_i = n_i [ w_c (1 + cos_i) / 2 + w_s beta / (tau_i + beta) ]
                       cos_i = cosine(Delta_i, x - x_dispatched(i))

Su, Li, "How Asynchronous can Federated Learning Be?", IWQoS 2022; weights as in the authors' code
(Plato, examples/async/port), which divides n_i by the buffer's sum of them first: that cancels, so
a running sum is enough. cos_i = 1 where there is no direction to compare: the model has not moved
since the dispatch, or Delta_i is 0. Plato compares with the model of two rounds ago whoever asks;
here it is the update's own base, as the paper means it.
"""

import math
from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.rules.base import Rule
from fedagent.rules.buffer import Buffer
from fedagent.update import Update


class PORT(Rule):
    """PORT's server rule.

    Parameters
    ----------
    buffer_size : K >= 1, updates per published version.
    w_c : >= 0, how much agreement in direction counts; 0 ignores it.
    w_s : >= 0, how much freshness counts; 0 ignores it. Not both weights may be 0.
    beta : > 0, the staleness at which freshness has fallen to one half.
    """

    def __init__(
        self, buffer_size: int = 10, w_c: float = 1.0, w_s: float = 3.0, beta: float = 10.0
    ) -> None:
        require(buffer_size >= 1, f"PORT: buffer_size={buffer_size} must be at least 1.")
        require(w_c >= 0, f"PORT: w_c={w_c} must not be negative.")
        require(w_s >= 0, f"PORT: w_s={w_s} must not be negative.")
        require(w_c + w_s > 0, f"PORT: w_c={w_c} and w_s={w_s} leave every update without weight.")
        require(beta > 0, f"PORT: beta={beta} must be positive.")
        self.buffer_size = buffer_size
        self.w_c, self.w_s, self.beta = w_c, w_s, beta
        self._buffer = Buffer()

    @property
    def pending(self) -> int:
        """Updates in the buffer."""
        return len(self._buffer)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Add p_i Delta_i to the buffer; the K-th update publishes."""
        freshness = self.beta / (update.staleness + self.beta)
        agreement = (1.0 + self._cosine(model, update)) / 2.0 if self.w_c else 0.0
        weight = update.num_examples * (self.w_c * agreement + self.w_s * freshness)
        self._buffer.add(update.delta, weight)
        model.carry(update.carried)
        if len(self._buffer) < self.buffer_size:
            return False
        model.vector.add_(self._buffer.take())
        return True

    @staticmethod
    def _cosine(model: FlatModel, update: Update) -> float:
        """Return the cosine between the update and what the model did since its dispatch."""
        if update.staleness == 0:
            return 1.0
        moved = stepped = product = 0.0
        for x, delta, base in blocks(model.vector, update.delta, update.base):
            # In float64: the square of a large finite step overflows float32.
            movement, step = (x - base).double(), delta.double()
            moved += float(movement @ movement)
            stepped += float(step @ step)
            product += float(movement @ step)
        if not (moved and stepped):
            return 1.0
        return min(1.0, max(-1.0, product / math.sqrt(moved) / math.sqrt(stepped)))

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer."""
        return self._buffer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the buffer."""
        self._buffer.load_state_dict(state)
