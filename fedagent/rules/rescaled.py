r"""Rescaled: the updates of every node together count the same, however often it is heard.

    on each arrival:   c_i <- c_i + 1,   N <- N + 1
                       w_i = min( N / (n c_i), w_max )
                       the inner rule receives w_i Delta_i

Mahran, Maranjyan, Richtarik, "Rescaled Asynchronous SGD: Optimal Distributed Optimization under
Data and System Heterogeneity", arXiv 2605.13434: asynchronous SGD leans towards the data of fast
nodes, and does not if a node's step is proportional to its computation time T_i. Around `ASGD`
this is that method.

Ours: N / c_i, updates of all nodes per update of this one, stands for T_i. It is proportional to it
where every node is always at work, needs no clock, and counts as well that a node waits to be
chosen. n is the nodes heard so far, so that the mean of w_i over the updates is 1 and the learning
rate keeps its meaning; with the mean over nodes, one straggler would make everybody else's steps
tiny. w_max bounds what a node that is seldom heard adds at once. Any rule may be the inner one:
around `FedBuff` a buffer's mean is rescaled as well.

With one node, or when all have been heard equally often, w_i = 1: the inner rule as it is.
"""

from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.wrapper import RuleWrapper
from fedagent.update import Update


class Rescaled(RuleWrapper):
    """The inner rule, in which every node has the same say.

    Parameters
    ----------
    inner : what the rescaled update does to the model.
    max_weight : w_max >= 1, the largest weight; infinity for none.
    """

    def __init__(self, inner: Rule, max_weight: float = 5.0) -> None:
        super().__init__(inner)
        require(max_weight >= 1, f"Rescaled: max_weight={max_weight} must be at least 1.")
        self.max_weight = max_weight
        self._counts: dict[int, int] = {}
        self._num_received = 0

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Scale the update by what its node is owed, and let the inner rule have it."""
        update.delta.mul_(self._weight(update.node_id))
        return self.inner.receive(model, update)

    def _weight(self, node_id: int) -> float:
        """Count an update; return w_i."""
        self._num_received += 1
        self._counts[node_id] = count = self._counts.get(node_id, 0) + 1
        return min(self._num_received / (len(self._counts) * count), self.max_weight)

    def state_dict(self) -> dict[str, Any]:
        """Return the inner rule's state, and how often each node was heard."""
        return {
            "inner": self.inner.state_dict(),
            "counts": {str(node_id): count for node_id, count in self._counts.items()},
            "num_received": self._num_received,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state["inner"])
        self._counts = {int(node_id): int(count) for node_id, count in state["counts"].items()}
        self._num_received = int(state["num_received"])
