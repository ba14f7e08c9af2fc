r"""Ringmaster LMO: a step of fixed size in the direction that the momentum gains most by.

    tau_i >= R:    refused, and the node starts over from the newest version
    tau_i < R:     m <- beta m + (1 - beta) Delta_i
                   x <- x + eta_k argmax_{|u| <= 1} <m, u>,    eta_k = eta / sqrt(1 + k / k_0)

Sadiev, Maranjyan, Ilin, Richtarik, "Ringmaster LMO: Asynchronous Linear Minimization Oracle
Momentum Method", arXiv 2605.18174 (with g = -Delta the argmax is its argmin); the abstract and a
summary were read. It leaves the norm open.

Ours, per array b as Muon does it: for a matrix, or what has more axes and is flattened to (rows,
rest), the largest singular value, so that the step is U V^T of m_b = U S V^T; for the others
sqrt(n) times the largest number, so that the step is sign(m_b) / sqrt(n). U V^T is not computed
exactly: five Newton-Schulz steps with Muon's numbers leave singular values of about .7 to 1.2. The
paper's variant that finds R by itself is not here.

k counts the updates received before; without k_0 eta_k = eta. Steps of one size never come to rest:
a long run wants them to shrink, at the rate 1 / sqrt(k) that is usual for noisy gradients.

How far the model moves does not depend on the size of Delta: the clients' learning rate decides
only how far they look, and eta_k alone the pace.

Running means and variances of normalisations are no parameters: they are averaged, x_b <- x_b +
(1 - beta) Delta_b. A step of fixed size would let a small variance become negative.

Memory: P floats for m, and a few times the largest array while a step is made.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from fedagent.arrays import ArraySpec
from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule, too_stale
from fedagent.update import Rejection, Update

_STEPS, _A, _B, _C = 5, 3.4445, -4.7750, 2.0315


class RingmasterLMO(Rule):
    """Ringmaster LMO's server rule.

    Parameters
    ----------
    max_staleness : R >= 1, the first staleness that is refused; None accepts everything.
    server_learning_rate : eta > 0, the size of every step.
    momentum : beta in [0, 1); 0 forgets all updates but the newest.
    shrink_after : k_0 > 0, updates after which a step is eta / sqrt(2); None keeps eta.
    """

    def __init__(
        self,
        max_staleness: int | None = None,
        server_learning_rate: float = 0.01,
        momentum: float = 0.9,
        shrink_after: float | None = None,
    ) -> None:
        require(
            max_staleness is None or max_staleness >= 1,
            f"RingmasterLMO: max_staleness={max_staleness} must be at least 1, or null: with 0 "
            "even a fresh update is refused.",
        )
        require(
            server_learning_rate > 0,
            f"RingmasterLMO: server_learning_rate={server_learning_rate} must be positive.",
        )
        require(0 <= momentum < 1, f"RingmasterLMO: momentum={momentum} must lie in [0, 1).")
        require(
            shrink_after is None or shrink_after > 0,
            f"RingmasterLMO: shrink_after={shrink_after} must be positive, or null.",
        )
        self.max_staleness = max_staleness
        self.server_learning_rate = server_learning_rate
        self.momentum = momentum
        self.shrink_after = shrink_after
        self._num_received = 0
        self._momentum: torch.Tensor | None = None

    @property
    def typical_staleness(self) -> float:
        """Six times the updates that the momentum is a mean of, 6 / (1 - beta)."""
        return round(6.0 / (1.0 - self.momentum), 3)

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse tau >= R."""
        is_late = self.max_staleness is not None and update.staleness >= self.max_staleness
        return too_stale(update) if is_late else None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Move every array by a step of size eta_k."""
        size = self._step_size()
        if self._momentum is None:
            self._momentum = torch.zeros_like(model.vector)
        self._momentum.lerp_(update.delta, 1.0 - self.momentum)
        for spec in model.spec.arrays:
            part = model.spec.offsets.get(spec.name)
            if part is None or not spec.size:
                continue
            if spec.is_statistic:
                model.vector[part].add_(update.delta[part], alpha=1.0 - self.momentum)
            else:
                step = direction(self._momentum[part], spec)
                model.vector[part].add_(step, alpha=size)
        model.carry(update.carried, update.staleness)
        return True

    def _step_size(self) -> float:
        """Count an update; return eta_k."""
        k, self._num_received = self._num_received, self._num_received + 1
        return self.server_learning_rate / math.sqrt(1.0 + k / (self.shrink_after or math.inf))

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum, and how many updates were received."""
        return {
            "momentum": None if self._momentum is None else self._momentum.clone(),
            "num_received": self._num_received,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._num_received = int(state["num_received"])
        momentum = state["momentum"]
        self._momentum = None if momentum is None else momentum.clone()


def direction(m: torch.Tensor, spec: ArraySpec) -> torch.Tensor:
    """Return the step of size 1, as long as the (n,) momentum of an array."""
    if len(spec.shape) < 2 or len(m) != spec.size:  # a complex number is two real ones
        return m.sign().div_(len(m) ** 0.5)
    return orthogonalised(m.view(spec.shape[0], -1)).reshape(-1)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Return about U V^T of a (rows, columns) matrix U S V^T; 0 of 0."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(_STEPS):
        square = x @ x.T
        x = _A * x + (_B * square + _C * square @ square) @ x
    result: torch.Tensor = x.T if is_tall else x
    return result
