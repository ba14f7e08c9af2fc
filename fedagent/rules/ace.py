r"""ACE and ACED: every arrival moves the model by the latest updates of *all* clients.

    u_i <- Delta_i,    x <- x + eta (1/n) sum_j u_j        on each arrival

Chang et al., "Mitigating Participation Imbalance Bias in Asynchronous Federated Learning",
arXiv 2511.19066. u_j = 0 until client j was heard. Fast clients replace their own entry more often
instead of counting more, so participation does not bias the model.

ACED (``max_age`` is a number) sums only entries whose base is at most `max_age` versions old, and
divides by how many those are. An update that arrives older than that is refused.

Memory: n x P floats for the table, and a running sum, so that an arrival costs O(P).
"""

from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule, too_stale
from fedagent.rules.table import Table
from fedagent.update import Rejection, Update


class ACE(Rule):
    """ACE's server rule; with `max_age` ACED's.

    Parameters
    ----------
    num_nodes : n, the nodes there are; those heard from, once they are more. ACED does not use it.
    server_learning_rate : eta > 0. Every arrival is a step of the mean, not a share of one: n
        arrivals at eta = 1 are n rounds of FedAvg on old updates. Start at 1 / concurrency.
    max_age : versions, >= 0, after which ACED drops an entry; None never does (ACE).
    """

    def __init__(
        self, num_nodes: int = 1, server_learning_rate: float = 0.05, max_age: int | None = None
    ) -> None:
        require(num_nodes >= 1, f"ACE: num_nodes={num_nodes} must be at least 1.")
        require(
            server_learning_rate > 0,
            f"ACE: server_learning_rate={server_learning_rate} must be positive.",
        )
        require(
            max_age is None or max_age >= 0,
            f"ACE: max_age={max_age} must not be negative; null keeps every entry.",
        )
        self.num_nodes = num_nodes
        self.server_learning_rate = server_learning_rate
        self.max_age = max_age
        self._latest = Table()
        self._base_versions: dict[int, int] = {}

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse what would be dropped at once."""
        is_old = self.max_age is not None and update.staleness > self.max_age
        return too_stale(update) if is_old else None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Replace the node's entry and step along the mean of all entries."""
        self._latest.put(update.node_id, update.delta)
        self._base_versions[update.node_id] = model.version - update.staleness
        self._drop_old_entries(model.version)
        model.carry(update.carried, update.staleness)
        n = max(self.num_nodes, len(self._latest)) if self.max_age is None else len(self._latest)
        self._latest.add_sum_to(model.vector, alpha=self.server_learning_rate / n)
        return True

    def _drop_old_entries(self, version: int) -> None:
        if self.max_age is None:
            return
        for node_id, base_version in list(self._base_versions.items()):
            if version - base_version > self.max_age:
                self._latest.drop(node_id)
                del self._base_versions[node_id]

    def state_dict(self) -> dict[str, Any]:
        """Return the table and how old its entries are."""
        return {
            "latest": self._latest.state_dict(),
            "base_versions": {str(k): version for k, version in self._base_versions.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._latest.load_state_dict(state["latest"])
        self._base_versions = {int(k): int(v) for k, v in state["base_versions"].items()}
