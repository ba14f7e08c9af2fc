r"""FedStaleWeight: a buffer in which slow clients count more, so that all count the same over time.

    after K updates:   x <- x + eta (sum_i w_i Delta_i) / (sum_i w_i),    w_i = K taubar_i + 1

Ma, Tu, Chen, Janapa Reddi, "FedStaleWeight: Buffered Asynchronous Federated Learning with Fair
Aggregation via Staleness Reweighting", arXiv 2406.02877. A client whose updates are tau versions
late lets about K tau others pass between two of its own: weighing it by that number gives every
client the same say. taubar_i is the average staleness of node i's updates so far, which keeps a
node from gaining by being late once; ``average=False`` takes each update's own tau_i.

K is the mean number of updates per version so far: `buffer_size`, unless a clock publishes.

The opposite sign of a staleness weight: with tau = 0 everywhere it is FedBuff, unweighted.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.buffered import BufferedRule
from fedagent.update import Update


class FedStaleWeight(BufferedRule):
    """FedStaleWeight's server rule.

    Parameters
    ----------
    buffer_size : K >= 1, updates per published version; None leaves publishing to the clock.
    server_learning_rate : eta > 0; 1 takes the buffer's mean step.
    average : weigh by the node's average staleness (the paper) or by the update's own.
    """

    def __init__(
        self,
        buffer_size: int | None = 10,
        server_learning_rate: float = 1.0,
        average: bool = True,
    ) -> None:
        super().__init__(buffer_size)
        require(
            server_learning_rate > 0,
            f"FedStaleWeight: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.server_learning_rate = server_learning_rate
        self.average = average
        self._num_received = 0
        self._version, self._updates_per_version = 0, 0.0
        self._seen: dict[int, tuple[int, int]] = {}  # node -> sum of tau, number of updates

    def add(self, model: FlatModel, update: Update) -> None:
        """Add w_i Delta_i to the buffer."""
        if model.version > self._version:  # all that was received so far is part of a version
            self._version = model.version
            self._updates_per_version = self._num_received / model.version
        self._num_received += 1
        weight = self._updates_per_version * self._staleness_of(update) + 1.0
        self.buffer.add(update.delta, weight)

    def step(self, model: FlatModel, mean: torch.Tensor) -> None:
        """Apply x <- x + eta mean."""
        model.vector.add_(mean, alpha=self.server_learning_rate)

    def _staleness_of(self, update: Update) -> float:
        """Return taubar_i, this update included."""
        if not self.average:
            return update.staleness
        total, count = self._seen.get(update.node_id, (0, 0))
        self._seen[update.node_id] = total + update.staleness, count + 1
        return (total + update.staleness) / (count + 1)

    def extra_state(self) -> dict[str, Any]:
        """Return how late each node has been, and how many updates a version had."""
        return {
            "seen": {str(node_id): list(sums) for node_id, sums in self._seen.items()},
            "num_received": self._num_received,
            "version": self._version,
            "updates_per_version": self._updates_per_version,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `extra_state` returned."""
        self._seen = {int(node_id): (int(a), int(b)) for node_id, (a, b) in state["seen"].items()}
        self._num_received, self._version = int(state["num_received"]), int(state["version"])
        self._updates_per_version = float(state["updates_per_version"])
