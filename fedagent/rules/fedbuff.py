r"""FedBuff: buffered asynchronous aggregation.

    after K updates:   x <- x + eta (sum_i n_i s(tau_i) Delta_i) / N

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", arXiv 2106.06639,
Algorithm 1. The paper has n_i = 1 and N = K. ``weighted=True`` takes n_i = num-examples, as
Flower's FedAvg does; ``normalise`` chooses what is divided by:

    "buffer"   N = sum_i n_i            staleness shrinks the step (the paper)
    "weights"  N = sum_i n_i s(tau_i)   staleness only shifts weight between clients

With equal speeds, K = cohort and s = 1 both are FedAvg. Only a running sum is kept.
"""

from typing import Literal, get_args

import torch

from fedagent.errors import one_of, require
from fedagent.model import FlatModel
from fedagent.rules.buffered import BufferedRule, BufferSize
from fedagent.rules.combining import Combining
from fedagent.rules.staleness import Staleness, polynomial, validated
from fedagent.update import Update

Normalise = Literal["buffer", "weights"]


class FedBuff(BufferedRule):
    """FedBuff's server rule.

    Parameters
    ----------
    buffer_size : see `BufferedRule`.
    server_learning_rate : eta > 0; 1 takes the buffer's mean step.
    staleness : s(tau), 1 for a fresh update.
    normalise : "buffer" or "weights", see the module's formula.
    weighted : weigh clients by num-examples (FedAvg) instead of equally (the paper).
    """

    def __init__(
        self,
        buffer_size: BufferSize = 10,
        server_learning_rate: float = 1.0,
        staleness: Staleness = polynomial,
        normalise: Normalise = "buffer",
        weighted: bool = True,
    ) -> None:
        super().__init__(buffer_size)
        require(
            server_learning_rate > 0,
            f"FedBuff: server_learning_rate={server_learning_rate} must be positive.",
        )
        one_of("FedBuff: normalise", normalise, get_args(Normalise))
        self.server_learning_rate = server_learning_rate
        self.staleness = validated(staleness)
        self.normalise = normalise
        self.weighted = weighted

    def discount(self, staleness: int) -> float:
        """Return s(tau)."""
        return self.staleness(staleness)

    def influence(self, update: Update) -> float:
        """Return n_i s(tau_i)."""
        examples = update.num_examples if self.weighted else 1.0
        return examples * self.staleness(update.staleness)

    def combine_with(self, combining: Combining) -> None:
        """Combine so, and let no node count more because it says that it has more examples."""
        super().combine_with(combining)
        self.weighted = False

    def weigh_equally(self) -> None:
        """Leave the examples out; refuse if the staleness weighs.

        Raises
        ------
        ConfigurationError
            If s(tau) is not 1.
        """
        require(
            all(self.staleness(tau) == 1.0 for tau in (1, 10, 1000)),
            "FedBuff: staleness weighs single updates, and secure sums have none: take "
            "staleness=constant.",
        )
        self.weighted = False

    def add(self, model: FlatModel, update: Update) -> None:
        """Add n_i s(tau_i) Delta_i to the buffer, and n_i or n_i s(tau_i) to the divisor."""
        examples = update.num_examples if self.weighted else 1.0
        weight = examples * self.staleness(update.staleness)
        share = examples if self.normalise == "buffer" else weight
        self.buffer.add(update.delta, weight, share)

    def step(self, model: FlatModel, mean: torch.Tensor) -> None:
        """Apply x <- x + eta mean."""
        model.vector.add_(mean, alpha=self.server_learning_rate)
