r"""CA2FL: FedBuff, calibrated by the latest update the server has of every client.

    after K updates:   v = (1/K) sum_{i in buffer} (Delta_i - h_i) + (1/n) sum_{all j} h_j
                       x <- x + eta v,   then   h_i <- Delta_i for every i in the buffer

Wang, Cao, Wu, Chen, Chen, "Tackling the Data Heterogeneity in Asynchronous Federated Learning with
Cached Update Calibration", ICLR 2024, Algorithm 2. h_i = 0 until client i was heard: without
history this is FedBuff, unweighted and without staleness weights. All h are those from *before*
the buffer, also when a client is in it twice; of its updates the latest becomes h_i.

Memory: n x P floats for h, and up to K x P for the updates that are about to replace some of them.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.buffered import BufferedRule
from fedagent.rules.combining import Combining
from fedagent.rules.table import Table
from fedagent.update import Update


class CA2FL(BufferedRule):
    """CA2FL's server rule.

    Parameters
    ----------
    buffer_size : K >= 1, updates per published version; the paper takes 0.4 of the concurrency.
        None leaves publishing to the clock; K is then as many as came.
    server_learning_rate : eta > 0.
    num_nodes : n, the nodes there are; those heard from, once they are more.
    """

    def __init__(
        self, buffer_size: int | None = 10, server_learning_rate: float = 1.0, num_nodes: int = 1
    ) -> None:
        super().__init__(buffer_size)
        require(
            server_learning_rate > 0,
            f"CA2FL: server_learning_rate={server_learning_rate} must be positive.",
        )
        require(num_nodes >= 1, f"CA2FL: num_nodes={num_nodes} must be at least 1.")
        self.server_learning_rate = server_learning_rate
        self.num_nodes = num_nodes
        self._cache = Table()
        self._fresh: dict[int, torch.Tensor] = {}

    def combine_with(self, combining: Combining) -> None:
        """Refuse: the mean of all h holds every node's latest update, whatever it is."""
        Rule.combine_with(self, combining)

    def add(self, model: FlatModel, update: Update) -> None:
        """Add Delta_i - h_i to the buffer."""
        self.buffer.add(update.delta)
        cached = self._cache.get(update.node_id)
        if cached is not None:
            self.buffer.subtract(cached)
        self._fresh[update.node_id] = update.delta

    def step(self, model: FlatModel, mean: torch.Tensor) -> None:
        """Apply x <- x + eta (mean + mean of all h), then replace the h of the buffer's nodes."""
        eta, n = self.server_learning_rate, max(self.num_nodes, len(self._cache))
        model.vector.add_(mean, alpha=eta)
        self._cache.add_sum_to(model.vector, alpha=eta / n)
        for node_id, delta in self._fresh.items():
            self._cache.put(node_id, delta)
        self._fresh.clear()

    def extra_state(self) -> dict[str, Any]:
        """Return h, and what will replace some of it."""
        return {
            "cache": self._cache.state_dict(),
            "fresh": {str(node_id): delta.clone() for node_id, delta in self._fresh.items()},
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `extra_state` returned."""
        self._cache.load_state_dict(state["cache"])
        self._fresh = {int(node_id): delta.clone() for node_id, delta in state["fresh"].items()}
