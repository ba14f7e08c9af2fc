r"""Malenia SGD: the mean of what each node found at one version, every node counting the same.

    tau_i > 0:   refused, and the node starts over from the newest version
    B_i = fresh updates of node i, D_i = their sum; as soon as every node has B_i >= 1 and

        ((1/n) sum_i 1/B_i)^-1 >= S / n:      x <- x + (eta / n) sum_i D_i / B_i

Tyurin, Richtarik, "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a
Fixed Computation Model", arXiv 2305.12387 (Malenia SGD). The harmonic mean of the B_i bounds the
noise of the step: its variance is sigma^2 (1/n^2) sum_i 1/B_i <= sigma^2 / S. S = n asks for one
update of everybody. Every node counts 1/n however fast it is, so that data that only slow nodes
hold is not lost; the price is that a version takes as long as the slowest node. All nodes must
take part: with concurrency below n, the missing ones get their turn only when others finish. No
clock may publish instead: before every node was heard the mean would favour the fast ones.
"""

from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule, too_stale
from fedagent.rules.buffer import Buffer
from fedagent.update import Rejection, Update


class Malenia(Rule):
    """Malenia's server rule. Keeps one vector per node.

    Parameters
    ----------
    num_nodes : n >= 1, how many different nodes must have contributed. A fleet of fewer never
        publishes; of more, every node that has contributed counts the same.
    batch_size : S >= 1; None for n, one update of every node.
    server_learning_rate : eta > 0; 1 takes the mean of the nodes' mean steps.
    """

    def __init__(
        self, num_nodes: int, batch_size: int | None = None, server_learning_rate: float = 1.0
    ) -> None:
        require(num_nodes >= 1, f"Malenia: num_nodes={num_nodes} must be at least 1.")
        require(
            batch_size is None or batch_size >= 1,
            f"Malenia: batch_size={batch_size} must be at least 1, or null for num_nodes.",
        )
        require(
            server_learning_rate > 0,
            f"Malenia: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.num_nodes = num_nodes
        self.batch_size = num_nodes if batch_size is None else batch_size
        self.server_learning_rate = server_learning_rate
        self._batches: dict[int, Buffer] = {}

    @property
    def pending(self) -> int:
        """Updates in the batch."""
        return sum(len(batch) for batch in self._batches.values())

    @property
    def allows_clock(self) -> bool:
        """No: a version comes when every node was heard at the last one."""
        return False

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse what did not start from the current version."""
        return too_stale(update) if update.staleness else None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Add Delta to its node's batch; publish the mean of means once it is certain enough."""
        self._batches.setdefault(update.node_id, Buffer()).add(update.delta)
        model.carry(update.carried, update.staleness)
        if not self._is_complete():
            return False
        for batch in self._batches.values():
            model.vector.add_(batch.take(), alpha=self.server_learning_rate / len(self._batches))
        self._batches.clear()
        return True

    def _is_complete(self) -> bool:
        n = len(self._batches)
        if n < self.num_nodes:
            return False
        harmonic_mean = n / sum(1.0 / len(batch) for batch in self._batches.values())
        # The slack keeps rounding from asking for one update more than the formula does.
        return harmonic_mean >= self.batch_size / n * (1.0 - 1e-12)

    def state_dict(self) -> dict[str, Any]:
        """Return the batches, nodes in the order of their first update."""
        return {"batches": {str(node): b.state_dict() for node, b in self._batches.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the batches."""
        self._batches = {int(node): Buffer() for node in state["batches"]}
        for node, batch in self._batches.items():
            batch.load_state_dict(state["batches"][str(node)])
