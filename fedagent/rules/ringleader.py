r"""Ringleader ASGD: steps on a table with one row per node, one step per node and round.

    row i     G_i = sum of node i's updates, b_i = their number
    step      x <- x + (eta / n) sum_i G_i / b_i

    phase 1   every update goes into its row, until no row is empty; the node that fills the last
              one takes the round's first step
    phase 2   every other node takes a step with its next update, which first goes into its row;
              updates of a node that has had its step go into the next round's row

Maranjyan, Richtarik, "Ringleader ASGD: The First Asynchronous SGD with Optimal Time Complexity
under Data Heterogeneity", arXiv 2509.22860, Algorithm 1. A round is exactly n steps, no update is
refused, and none is older than 2n - 2 steps when it is used. Every step is the mean over all nodes,
so fast nodes do not pull the model towards their data. Needs every node: one that is gone for good
ends the run's progress. A node's update is used up to n times, hence eta ~ 1/n where ASGD has 1.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.rules.base import Rule
from fedagent.update import Update


class Ringleader(Rule):
    """Ringleader's server rule. Keeps one vector per node, and the sum of the table.

    A row is needed until its node has had its step; from then on it lives on in the table's sum,
    and the node's row is that of the next round.

    Parameters
    ----------
    num_nodes : n >= 1, rows to fill before a round steps. A fleet of fewer never publishes; of
        more, a node that comes while others take their steps belongs to the next round.
    server_learning_rate : eta > 0.
    """

    def __init__(self, num_nodes: int, server_learning_rate: float = 1.0) -> None:
        require(num_nodes >= 1, f"Ringleader: num_nodes={num_nodes} must be at least 1.")
        require(
            server_learning_rate > 0,
            f"Ringleader: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.num_nodes = num_nodes
        self.server_learning_rate = server_learning_rate
        self._rows: dict[int, torch.Tensor] = {}  # node -> mean of its updates, G_i / b_i
        self._counts: dict[int, int] = {}  # node -> b_i
        self._table: torch.Tensor | None = None  # sum of this round's rows
        self._size = 0  # rows in that sum
        self._waiting: list[int] = []  # nodes whose step in this round is still to come

    @property
    def pending(self) -> int:
        """Updates that no step has used yet: those of phase 1 or of the next round."""
        return sum(b for node, b in self._counts.items() if node not in self._waiting)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Add Delta to its node's row; take a step if it is the node's turn."""
        node = update.node_id
        if self._table is None:
            self._table = torch.zeros_like(model.vector)
        model.carry(update.carried, update.staleness)
        is_turn = node in self._waiting
        change = self._add(node, update.delta)
        if is_turn:
            self._table.add_(change)
        elif self._waiting or len(self._rows) < self.num_nodes:
            return False
        else:
            self._start_steps(self._table)
        model.vector.add_(self._table, alpha=self.server_learning_rate / self._size)
        self._waiting.remove(node)
        del self._rows[node], self._counts[node]
        return True

    def _add(self, node: int, delta: torch.Tensor) -> torch.Tensor:
        """Take Delta into the mean of a row; return, in its memory, by how much the row changed."""
        count = self._counts[node] = self._counts.get(node, 0) + 1
        if count == 1:
            self._rows[node] = delta
            return delta
        for row, change in blocks(self._rows[node], delta):
            change.sub_(row).div_(count)
            row.add_(change)
        return delta

    def _start_steps(self, table: torch.Tensor) -> None:
        """Begin phase 2: sum the rows; every node in the table has a step to take."""
        table.zero_()
        for row in self._rows.values():
            table.add_(row)
        self._size = len(self._rows)
        self._waiting = list(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the table."""
        return {
            "rows": {str(node): row.clone() for node, row in self._rows.items()},
            "counts": {str(node): count for node, count in self._counts.items()},
            "table": None if self._table is None else self._table.clone(),
            "size": self._size,
            "waiting": list(self._waiting),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the table."""
        self._rows = {int(node): row.clone() for node, row in state["rows"].items()}
        self._counts = {int(node): int(count) for node, count in state["counts"].items()}
        self._table = None if state["table"] is None else state["table"].clone()
        self._size = int(state["size"])
        self._waiting = [int(node) for node in state["waiting"]]
