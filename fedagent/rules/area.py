r"""AREA: the global model is, exactly, the mean of what the clients last sent.

    on arrival of y_i:   x <- x + (1/n) (y_i - y_i_last_sent),    so that    x = (1/n) sum_j y_j
    after every P arrivals (`publish_every`) x is published, or when a clock says so

Iakovidou, Kim, "Asynchronous Federated Stochastic Optimization for Heterogeneous Objectives Under
Arbitrary Delays" (AsynchRonous Exact Averaging), arXiv 2405.10123. y_j = x_0 until client j was
heard. The memory is the clients': each remembers what it last sent and sends the difference
(`fedagent.client.mods.area_difference_mod`), so the server keeps no table.

Both sides must mean the same "last sent". A client cannot know whether its reply arrived, was
refused or expired, so every job tells it how many of its updates were applied
(``keys.NUM_APPLIED``). While that is 0 it sends its whole model, and the base the ledger knows
turns that into y_i - x_0 here. A difference that was lost is part of the next one.

Memory: x_0 (P floats), and a counter per node.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent import keys
from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.rules.base import Rule
from fedagent.update import Update


class AREA(Rule):
    """AREA's server rule. Its clients need `area_difference_mod`.

    Parameters
    ----------
    num_nodes : n, the nodes there are; those heard from, once they are more.
    publish_every : updates per published version, >= 1.
    """

    def __init__(self, num_nodes: int = 1, publish_every: int = 3) -> None:
        require(num_nodes >= 1, f"AREA: num_nodes={num_nodes} must be at least 1.")
        require(publish_every >= 1, f"AREA: publish_every={publish_every} must be at least 1.")
        self.num_nodes = num_nodes
        self.publish_every = publish_every
        self._initial: torch.Tensor | None = None
        self._num_applied: dict[int, int] = {}
        self._pending = 0

    @property
    def pending(self) -> int:
        """Updates that are in x but not in a published version."""
        return self._pending

    @property
    def allows_prefetch(self) -> bool:
        """No: a difference is one to what was applied when the job was sent."""
        return False

    def job_config(self, node_id: int) -> dict[str, int]:
        """Tell a node how many of its updates are part of x."""
        return {keys.NUM_APPLIED: self._num_applied.get(node_id, 0)}

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Replace what node i last sent in the mean by what it sends now."""
        if self._initial is None:
            self._initial = model.vector.clone()
        if update.node_id not in self._num_applied:
            self._welcome(model.vector, update)
        n = max(self.num_nodes, len(self._num_applied))
        model.vector.add_(update.delta, alpha=1.0 / n)
        model.carry(update.carried, update.staleness)
        self._num_applied[update.node_id] += 1
        self._pending = (self._pending + 1) % self.publish_every
        return self._pending == 0

    def flush(self, model: FlatModel) -> bool:
        """Publish what x holds already."""
        is_new, self._pending = self._pending > 0, 0
        return is_new

    def _welcome(self, x: torch.Tensor, update: Update) -> None:
        """Count a node in whose y was x_0 so far; its first update is a whole model."""
        assert self._initial is not None
        self._num_applied[update.node_id] = 0
        for delta, base, first in blocks(update.delta, update.base, self._initial):
            delta.add_(base).sub_(first)
        if len(self._num_applied) > self.num_nodes:
            x.lerp_(self._initial, 1.0 / len(self._num_applied))

    def state_dict(self) -> dict[str, Any]:
        """Return x_0 and what was applied of whom."""
        return {
            "initial": None if self._initial is None else self._initial.clone(),
            "num_applied": {str(node_id): n for node_id, n in self._num_applied.items()},
            "pending": self._pending,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._initial = None if state["initial"] is None else state["initial"].clone()
        self._num_applied = {int(node_id): int(n) for node_id, n in state["num_applied"].items()}
        self._pending = int(state["pending"])
