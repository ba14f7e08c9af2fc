r"""Updates that lead away from where the model goes.

    m <- beta m + x(t+1) - x(t)            at every version
    refused, if  cos(Delta, m) < min_cosine,  unless that holds for most nodes, one vote each

The momentum is what the model did, not what clients sent, so a lie must first have moved the model
to be in it. In the spirit of FLTrust (arXiv 2012.13995), whose reference is the server's own step;
the momentum as reference is ours and needs no data. Liars who are fast may be the first to move
the model; where most nodes turn away from m, it is m that is wrong, and everything passes.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.admission.filters.base import Filter, Votes, refused
from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.lengths import products
from fedagent.update import Rejection, Update


class Direction(Filter):
    """Refuses what turns away from the server's momentum.

    Parameters
    ----------
    min_cosine : in [-1, 1). Nodes whose data differ much are at times honestly below 0.
    momentum : beta in [0, 1).
    """

    def __init__(self, min_cosine: float = -0.2, momentum: float = 0.9) -> None:
        require(-1 <= min_cosine < 1, f"Direction: min_cosine={min_cosine} must lie in [-1, 1).")
        require(0 <= momentum < 1, f"Direction: momentum={momentum} must lie in [0, 1).")
        self.min_cosine, self.momentum = min_cosine, momentum
        self._version = -1
        self._last: torch.Tensor | None = None
        self._momentum: torch.Tensor | None = None
        self._votes = Votes()

    def judge(self, update: Update, model: FlatModel) -> Update | Rejection:
        """Compare the update with the momentum; without one everything passes."""
        self._follow(model)
        if self._momentum is None:
            return update
        own, both, other = products(update.delta, self._momentum)
        if not own or not other:
            return update
        cosine = both / own**0.5 / other**0.5
        self._votes.cast(update.node_id, cosine)
        if cosine >= self.min_cosine or self._votes.quantile(0.5) < self.min_cosine:
            return update
        return refused("against-momentum", f"its cosine with the server's momentum is {cosine:.2f}")

    def _follow(self, model: FlatModel) -> None:
        if model.version == self._version:
            return
        self._version = model.version
        last, self._last = self._last, model.vector.clone()
        if last is None:
            return
        if self._momentum is None:
            self._momentum = torch.zeros_like(last)
        self._momentum.mul_(self.momentum).add_(model.vector).sub_(last)

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum, and the version up to which it goes."""
        copies = (None if t is None else t.clone() for t in (self._last, self._momentum))
        named = dict(zip(("last", "momentum"), copies, strict=True))
        return {"version": self._version, "votes": self._votes.state_dict(), **named}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._version = int(state["version"])
        copies = (None if state[n] is None else state[n].clone() for n in ("last", "momentum"))
        self._last, self._momentum = copies
        self._votes.load_state_dict(state["votes"])
