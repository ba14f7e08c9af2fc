r"""Filters one after the other, and nodes that are not listened to for a while.

    suspicion of a node: s <- decay s + 1 when a filter refuses it, s <- decay s otherwise
    as long as s > limit, whatever it sends is refused; s falls with every update of it

A node that is refused is also given ever longer rests (`fedagent.nodes.backoff`), which end with
the first update that is taken: the suspicion does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedagent.admission.filters.base import Filter, refused
from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.update import Rejection, Update

_FORGOTTEN = 0.01  # suspicion below which a node is as any other


class Quarantine(Filter):
    """All of some filters, and suspicion of nodes that they refuse.

    Parameters
    ----------
    filters : in their order.
    limit : suspicion up to which a node is heard, > 0; infinity for no quarantine. With the
        defaults three refusals in a row are too many, and the next two updates are refused.
    decay : in (0, 1), of the suspicion with every update of the node.
    """

    def __init__(
        self, filters: Sequence[Filter] = (), limit: float = 2.0, decay: float = 0.9
    ) -> None:
        require(limit > 0, f"Quarantine: limit={limit} must be positive.")
        require(0 < decay < 1, f"Quarantine: decay={decay} must lie in (0, 1).")
        self.filters, self.limit, self.decay = tuple(filters), limit, decay
        self._suspicion: dict[int, float] = {}

    def judge(self, update: Update, model: FlatModel) -> Update | Rejection:
        """Let every filter see the update, unless its node is in quarantine."""
        node_id = update.node_id
        suspicion = self.decay * self._suspicion.pop(node_id, 0.0)
        if suspicion > self.limit:
            self._suspicion[node_id] = suspicion
            return refused("quarantined", f"filters have refused node {node_id} too often")
        judged = self._judged(update, model)
        if isinstance(judged, Rejection):
            suspicion += judged.blames_node
        if suspicion > _FORGOTTEN:
            self._suspicion[node_id] = suspicion
        return judged

    def _judged(self, update: Update, model: FlatModel) -> Update | Rejection:
        for each in self.filters:
            judged = each.judge(update, model)
            if isinstance(judged, Rejection):
                return judged
            update = judged
        return update

    def state_dict(self) -> dict[str, Any]:
        """Return what the filters remember, and who is suspected."""
        suspicion = {str(node_id): s for node_id, s in self._suspicion.items()}
        return {"filters": [f.state_dict() for f in self.filters], "suspicion": suspicion}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for each, kept in zip(self.filters, state["filters"], strict=True):
            each.load_state_dict(kept)
        self._suspicion = {int(node_id): float(s) for node_id, s in state["suspicion"].items()}
