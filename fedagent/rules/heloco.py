r"""HeLoCo: late updates are turned towards the momentum, and nodes train from where it leads.

    per array b:   c = cos(Delta_b, m_b),    g = |Delta_b| / (|Delta_b| + 3 |m_b|)
                   c >= c_ok:       Delta_b as it is
                   0 <= c < c_ok:   |Delta_b| times the direction of (1 - l) u + l v,
                                    u = Delta_b / |Delta_b|, v = m_b / |m_b|, l = min((1 - c) g, 1)
                   c < 0:           Delta_b - s c |Delta_b| v,    s = -c g / 2
    then           m <- beta m + (1 - beta) Delta
                   x <- x + eta (Delta + beta m)
    published:     y = x + eta beta m

Al Asif et al., "HeLoCo: Efficient asynchronous low-communication training under data and device
heterogeneity", arXiv 2606.00271. The formulas are those of a summary of the paper
(github.com/junaidaliop/zij, docs/math/heloco.md); the numbers 3, 1/2 and c_ok = .2 are those of a
public implementation. With them s cannot reach its bound of 1/2, so there is none here.

Without correction, c_ok = -1, what is left is momentum look-ahead: Ajanthan et al., "Momentum
Look-Ahead for Asynchronous Distributed Low-Communication Training", MCDC at ICLR 2025. Nodes start
from y, ahead of x along the momentum.

Ours: y is the published model, and what is evaluated as well; x is never seen. An array whose
update or momentum is 0 has no direction and is kept. eta is small, because every arrival steps.

beta = 0 without correction is `ASGD`.

Memory: P floats for m.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.rules.base import Rule
from fedagent.rules.lengths import products
from fedagent.update import Update

_SHRINK, _TURN, _MOMENTUM_WEIGHT = 0.5, 1.0, 3.0
_NOTHING = 1e-30  # of an update: a smaller momentum has no direction, and its inverse overflows


class HeLoCo(Rule):
    """HeLoCo's server rule.

    Parameters
    ----------
    server_learning_rate : eta > 0; start at 1 / the number of nodes at work.
    momentum : beta in [0, 1).
    keep_cosine : c_ok in [-1, 1], the least agreement with the momentum at which an array's update
        is left alone; -1 leaves all alone, which is momentum look-ahead.
    """

    def __init__(
        self,
        server_learning_rate: float = 0.03,
        momentum: float = 0.9,
        keep_cosine: float = 0.2,
    ) -> None:
        require(
            server_learning_rate > 0,
            f"HeLoCo: server_learning_rate={server_learning_rate} must be positive.",
        )
        require(0 <= momentum < 1, f"HeLoCo: momentum={momentum} must lie in [0, 1).")
        require(-1 <= keep_cosine <= 1, f"HeLoCo: keep_cosine={keep_cosine} must lie in [-1, 1].")
        self.server_learning_rate = server_learning_rate
        self.momentum = momentum
        self.keep_cosine = keep_cosine
        self._momentum: torch.Tensor | None = None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Correct the update array by array, then do a step of momentum and look ahead."""
        if self._momentum is None:
            self._momentum = torch.zeros_like(model.vector)
        if self.keep_cosine > -1:
            for part in model.spec.offsets.values():
                self._correct(update.delta[part], self._momentum[part])
        eta, beta = self.server_learning_rate, self.momentum
        for y, delta, m in blocks(model.vector, update.delta, self._momentum):
            y.sub_(m, alpha=eta * beta)  # back to x
            m.lerp_(delta, 1.0 - beta)
            y.add_(delta, alpha=eta).add_(m, alpha=2.0 * eta * beta)
        model.carry(update.carried, update.staleness)
        return True

    def _correct(self, delta: torch.Tensor, m: torch.Tensor) -> None:
        """Turn the update of one array towards its momentum, in place."""
        squared, product, m_squared = products(delta, m)
        norm, m_norm = math.sqrt(squared), math.sqrt(m_squared)
        if not m_norm > _NOTHING * norm > 0.0:
            return
        cosine = product / norm / m_norm
        if cosine >= self.keep_cosine:
            return
        confidence = norm / (norm + _MOMENTUM_WEIGHT * m_norm)
        if cosine < 0:
            delta.add_(m, alpha=_SHRINK * confidence * cosine**2 * norm / m_norm)
            return
        share = min(_TURN * (1.0 - cosine) * confidence, 1.0)
        # |(1 - l) u + l v|, from the cosine of u and v: more than 0, for that is not negative.
        length = math.sqrt((1.0 - share) ** 2 + share**2 + 2.0 * share * (1.0 - share) * cosine)
        delta.mul_((1.0 - share) / length).add_(m, alpha=share * norm / m_norm / length)

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum."""
        return {"momentum": None if self._momentum is None else self._momentum.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        momentum = state["momentum"]
        self._momentum = None if momentum is None else momentum.clone()
