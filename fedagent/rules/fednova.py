r"""FedNova, buffered: nodes that took more local steps do not weigh more for it.

    after K updates:   x <- x + eta (sum_i p_i B_i) sum_i p_i s(tau_i) Delta_i / B_i,
                       p_i = n_i / sum_j n_j over the buffer

Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
arXiv 2007.07481, for plain SGD, where a node's normalised step is Delta_i / B_i and the effective
number of steps is the mean of the B_i. The paper is synchronous; the buffer and s(tau) are
FedBuff's. With equal B_i it is `FedBuff` with normalise="buffer". ``weighted=True`` takes
n_i = num-examples, False n_i = 1.

B_i is the number of steps that was asked for. An update without it (no scheduler sets local steps)
counts as one step, so a run without any is FedBuff; set it for all nodes or for none.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.buffered import BufferedRule
from fedagent.rules.combining import Combining
from fedagent.rules.staleness import Staleness, polynomial, validated
from fedagent.update import Update


class FedNova(BufferedRule):
    """FedNova's correction as a buffered server rule.

    Parameters
    ----------
    buffer_size : K >= 1, updates per published version; None leaves publishing to the clock.
    server_learning_rate : eta > 0.
    staleness : s(tau), 1 for a fresh update.
    weighted : weigh clients by num-examples instead of equally.
    """

    def __init__(
        self,
        buffer_size: int | None = 10,
        server_learning_rate: float = 1.0,
        staleness: Staleness = polynomial,
        weighted: bool = True,
    ) -> None:
        super().__init__(buffer_size)
        require(
            server_learning_rate > 0,
            f"FedNova: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.server_learning_rate = server_learning_rate
        self.staleness = validated(staleness)
        self.weighted = weighted
        self._examples = 0.0  # sum_i n_i over the buffer
        self._steps = 0.0  # sum_i n_i B_i

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

    def add(self, model: FlatModel, update: Update) -> None:
        """Add the normalised step n_i s(tau_i) Delta_i / B_i to the buffer, n_i to the divisor."""
        steps = update.local_steps or 1
        examples = update.num_examples if self.weighted else 1.0
        weight = examples * self.staleness(update.staleness) / steps
        self.buffer.add(update.delta, weight, share=examples)
        self._examples += examples
        self._steps += examples * steps

    def step(self, model: FlatModel, mean: torch.Tensor) -> None:
        """Apply the mean normalised step, as long as the effective number of steps."""
        effective_steps = self._steps / self._examples
        model.vector.add_(mean, alpha=self.server_learning_rate * effective_steps)
        self._examples, self._steps = 0.0, 0.0

    def extra_state(self) -> dict[str, Any]:
        """Return the buffer's examples and steps."""
        return {"examples": self._examples, "steps": self._steps}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the buffer's examples and steps."""
        self._examples, self._steps = float(state["examples"]), float(state["steps"])
