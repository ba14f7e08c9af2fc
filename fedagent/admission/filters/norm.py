r"""A bound on how far one update may move the model.

    Delta <- Delta min(1, c / |Delta|),   or refused if |Delta| > c

    c = max_norm,   or factor times the `quantile` of the nodes' newest |Delta|, one vote a node

Sun, Kairouz, Suresh, McMahan, "Can You Really Backdoor Federated Learning?", arXiv 1911.07963, has
the fixed bound. The running quantile follows Andrew, Thakkar, McMahan, Ramaswamy, "Differentially
Private Learning with Adaptive Clipping", arXiv 1905.03871; a vote per node in place of a step per
update is ours: a node that answers fifty times as often drags it no further than any other.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from fedagent.admission.filters.base import Filter, Votes, refused
from fedagent.errors import one_of, require
from fedagent.model import FlatModel
from fedagent.rules.lengths import norm
from fedagent.update import Rejection, Update

Action = Literal["clip", "refuse"]


class NormBound(Filter):
    """Shortens, or refuses, what is longer than others are.

    Parameters
    ----------
    max_norm : c > 0; None for one that adapts.
    quantile : of the nodes' newest lengths, in (0, 1); above a half, as many liars decide it.
    factor : > 0, times the quantile.
    action : "clip" or "refuse".
    """

    def __init__(
        self,
        max_norm: float | None = None,
        quantile: float = 0.5,
        factor: float = 1.0,
        action: Action = "clip",
    ) -> None:
        require(
            max_norm is None or max_norm > 0,
            f"NormBound: max_norm={max_norm} must be positive, or null for one that adapts.",
        )
        require(0 < quantile < 1, f"NormBound: quantile={quantile} must lie in (0, 1).")
        require(factor > 0, f"NormBound: factor={factor} must be positive.")
        one_of("NormBound: action", action, get_args(Action))
        self.max_norm, self.quantile, self.factor, self.action = max_norm, quantile, factor, action
        self._votes = Votes()

    def judge(self, update: Update, model: FlatModel) -> Update | Rejection:
        """Bound the update."""
        length = norm(update.delta)
        bound = self._bound(update.node_id, length)
        if length <= bound:
            return update
        if self.action == "refuse":
            return refused("too-long", f"|Delta| is {length:.3g}, the bound {bound:.3g}")
        update.delta.mul_(bound / length)
        return update

    def _bound(self, node_id: int, length: float) -> float:
        if self.max_norm is not None:
            return self.max_norm
        self._votes.cast(node_id, length)
        return self.factor * self._votes.quantile(self.quantile)

    def state_dict(self) -> dict[str, Any]:
        """Return the votes."""
        return {"votes": self._votes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the votes."""
        self._votes.load_state_dict(state["votes"])
