"""A bound on how many examples a node may claim, where rules weigh by them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fedagent.admission.filters.base import Filter, Votes
from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.update import Rejection, Update


class ClaimBound(Filter):
    """Takes no node for more than `factor` times the median of all nodes' claims.

    Nobody can check how many examples a node has; so many at most does it get credit for.

    Parameters
    ----------
    factor : >= 1.
    """

    def __init__(self, factor: float = 5.0) -> None:
        require(factor >= 1, f"ClaimBound: factor={factor} must be at least 1.")
        self.factor = factor
        self._votes = Votes()

    def judge(self, update: Update, model: FlatModel) -> Update | Rejection:
        """Lower the claim, if it is too high."""
        self._votes.cast(update.node_id, update.num_examples)
        bound = self.factor * self._votes.quantile(0.5)
        return replace(update, num_examples=min(update.num_examples, bound))

    def state_dict(self) -> dict[str, Any]:
        """Return the votes."""
        return {"votes": self._votes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the votes."""
        self._votes.load_state_dict(state["votes"])
