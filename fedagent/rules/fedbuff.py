r"""FedBuff: buffered asynchronous aggregation.

    after K updates:   x <- x + eta (sum_i n_i s(tau_i) Delta_i) / N

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", arXiv 2106.06639,
Algorithm 1. The paper has n_i = 1 and N = K. ``weighted=True`` takes n_i = num-examples, as
Flower's FedAvg does; ``normalise`` chooses what is divided by:

    "buffer"   N = sum_i n_i            staleness shrinks the step (the paper)
    "weights"  N = sum_i n_i s(tau_i)   staleness only shifts weight between clients

With equal speeds, K = cohort and s = 1 both are FedAvg. Only a running sum is kept.
"""

from collections.abc import Mapping
from typing import Any

from fedagent.errors import one_of, require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.buffer import Buffer
from fedagent.staleness import Staleness, polynomial, validated
from fedagent.update import Update


class FedBuff(Rule):
    """FedBuff's server rule.

    Parameters
    ----------
    buffer_size : K >= 1, updates per published version; None leaves publishing to the clock
        (`Periodic`, the option ``publish_every_s``).
    server_learning_rate : eta > 0; 1 takes the buffer's mean step.
    staleness : s(tau), 1 for a fresh update.
    normalise : "buffer" or "weights", see the module's formula.
    weighted : weigh clients by num-examples (FedAvg) instead of equally (the paper).
    """

    def __init__(
        self,
        buffer_size: int | None = 10,
        server_learning_rate: float = 1.0,
        staleness: Staleness = polynomial,
        normalise: str = "buffer",
        weighted: bool = True,
    ) -> None:
        require(
            buffer_size is None or buffer_size >= 1,
            f"FedBuff: buffer_size={buffer_size} must be at least 1.",
        )
        require(
            server_learning_rate > 0,
            f"FedBuff: server_learning_rate={server_learning_rate} must be positive.",
        )
        one_of("FedBuff: normalise", normalise, ("buffer", "weights"))
        self.buffer_size = buffer_size
        self.server_learning_rate = server_learning_rate
        self.staleness = validated(staleness)
        self.normalise = normalise
        self.weighted = weighted
        self._buffer = Buffer()

    @property
    def pending(self) -> int:
        """Updates in the buffer."""
        return len(self._buffer)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Add n_i s(tau_i) Delta_i to the buffer; the K-th update publishes."""
        examples = update.num_examples if self.weighted else 1.0
        weight = examples * self.staleness(update.staleness)
        share = examples if self.normalise == "buffer" else weight
        self._buffer.add(update.delta, weight, share)
        model.carry(update.carried)
        if self.buffer_size is None or len(self._buffer) < self.buffer_size:
            return False
        self.flush(model)
        return True

    def flush(self, model: FlatModel) -> None:
        """Apply the mean of what the buffer holds."""
        if self._buffer:
            model.vector.add_(self._buffer.take(), alpha=self.server_learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer."""
        return self._buffer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the buffer."""
        self._buffer.load_state_dict(state)
