r"""PORT: weigh updates by how fresh they are and by whether they point where the model went.

    after K updates:   x <- x + (sum_i p_i Delta_i) / (sum_i p_i)
                       p_i = n_i [ w_c (1 + cos_i) / 2 + w_s beta / (tau_i + beta) ]
                       cos_i = cosine(Delta_i, x - x_dispatched(i))

Su, Li, "How Asynchronous can Federated Learning Be?", IWQoS 2022; weights as in the authors' code
(Plato, examples/async/port), which divides n_i by the buffer's sum of them first: that cancels, so
a running sum is enough. cos_i = 1 where there is no direction to compare: no version came out
since the dispatch, or Delta_i is 0. Plato compares with the model of two rounds ago whoever asks;
here it is the update's own base, as the paper means it.
"""

import math

import torch

from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.rules.buffered import BufferedRule
from fedagent.update import Update


class PORT(BufferedRule):
    """PORT's server rule.

    Parameters
    ----------
    buffer_size : K >= 1, updates per published version; None leaves publishing to the clock.
    w_c : >= 0, how much agreement in direction counts; 0 ignores it.
    w_s : >= 0, how much freshness counts; 0 ignores it. Not both weights may be 0.
    beta : > 0, the staleness at which freshness has fallen to one half.
    """

    def __init__(
        self, buffer_size: int | None = 10, w_c: float = 1.0, w_s: float = 3.0, beta: float = 10.0
    ) -> None:
        super().__init__(buffer_size)
        require(w_c >= 0, f"PORT: w_c={w_c} must not be negative.")
        require(w_s >= 0, f"PORT: w_s={w_s} must not be negative.")
        require(w_c + w_s > 0, f"PORT: w_c={w_c} and w_s={w_s} leave every update without weight.")
        require(beta > 0, f"PORT: beta={beta} must be positive.")
        self.w_c, self.w_s, self.beta = w_c, w_s, beta

    def add(self, model: FlatModel, update: Update) -> None:
        """Add p_i Delta_i to the buffer."""
        freshness = self.beta / (update.staleness + self.beta)
        agreement = (1.0 + self._cosine(model, update)) / 2.0 if self.w_c else 0.0
        weight = update.num_examples * (self.w_c * agreement + self.w_s * freshness)
        self.buffer.add(update.delta, weight)

    def step(self, model: FlatModel, mean: torch.Tensor) -> None:
        """Apply x <- x + mean."""
        model.vector.add_(mean)

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
