r"""Updates beside one that the server computes itself, on a few examples that it trusts.

Shape legend: g, (P,), what the clients' training changes of the newest model on trusted examples.

    AFLGuard       refused, if |Delta - g| > lambda |g|
    ZenoPlusPlus   Delta <- Delta |g| / |Delta|,
                   refused, if <g, Delta> - rho |Delta|^2 < -eps |g|^2
    FLTrust        Delta <- Delta |g| / |Delta|,   n <- cos(Delta, g),
                   refused, if that is not positive

Fang, Liu, Gong, Bentley, "AFLGuard: Byzantine-robust Asynchronous Federated Learning",
arXiv 2212.06325, Algorithm 1. Xie, Koyejo, Gupta, "Zeno++: Robust Fully Asynchronous SGD",
arXiv 1903.07020, Algorithm 1, with steps downhill for its gradients, and eps relative to |g|^2 so
that one number suits all of a run. Cao, Fang, Liu, Gong, "FLTrust: Byzantine-robust Federated
Learning via Trust Bootstrapping", arXiv 2012.13995, equations 2 to 4: their mean of a round is that
of a buffer, of any rule that weighs by examples n. All three hold whatever share of the nodes lies,
and as far as the trusted examples are like everybody's.

g is computed anew every `refresh_every` versions.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch

from fedagent.admission.filters.base import Filter, refused
from fedagent.errors import ConfigurationError, RunStalledError, require
from fedagent.model import FlatModel
from fedagent.rules.lengths import products, stretch
from fedagent.update import Rejection, Update

TrustedStep = Callable[[FlatModel], torch.Tensor]
"""The model -> (P,) what training on trusted examples changes of it."""


class TrustedSet(Filter):
    """What the three share.

    Parameters
    ----------
    step : how the server trains; `fedagent.client.TrustedTraining` does it for a `Task`. None for
        one that is set before the run begins. A run that is resumed brings its own.
    refresh_every : versions that one g serves for, >= 1.
    """

    UNSAVED: ClassVar = ("step",)

    def __init__(self, step: TrustedStep | None = None, refresh_every: int = 1) -> None:
        require(
            refresh_every >= 1,
            f"{type(self).__name__}: refresh_every={refresh_every} must be at least 1.",
        )
        self.step, self.refresh_every = step, refresh_every
        self._version = -1
        self._own: torch.Tensor | None = None

    def judge(self, update: Update, model: FlatModel) -> Update | Rejection:
        """Compare the update with the server's own.

        Raises
        ------
        ConfigurationError
            If there is no `step`.
        RunStalledError
            If the server's own step is not finite.
        """
        if self.step is None:
            raise ConfigurationError(
                f"{type(self).__name__} has nothing that it trusts: pass step=, a function that "
                "trains the model on the server's own examples."
            )
        if self._own is None or model.version >= self._version + self.refresh_every:
            self._own, self._version = self.step(model), model.version
        length2, both, own2 = products(update.delta, self._own)
        if not math.isfinite(own2):
            raise RunStalledError(
                f"What the server itself trains from version {self._version} is not finite, so "
                f"{type(self).__name__} has nothing to compare updates with: take a smaller "
                "learning_rate, or other trusted examples."
            )
        return self.compare(update, length2, both, own2)

    @abstractmethod
    def compare(
        self, update: Update, length2: float, both: float, own2: float
    ) -> Update | Rejection:
        """Judge an update by |Delta|^2, <Delta, g> and |g|^2."""

    def state_dict(self) -> dict[str, Any]:
        """Return g and its version."""
        return {"version": self._version, "own": None if self._own is None else self._own.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._version, own = int(state["version"]), state["own"]
        self._own = None if own is None else own.clone()


class AFLGuard(TrustedSet):
    """Refuses what is far from the server's own step.

    Parameters
    ----------
    step, refresh_every : see `TrustedSet`.
    radius : lambda > 0; below 1 nothing passes that stands still, above that nodes may differ more.
    """

    def __init__(
        self, step: TrustedStep | None = None, refresh_every: int = 1, radius: float = 1.5
    ) -> None:
        super().__init__(step, refresh_every)
        require(radius > 0, f"AFLGuard: radius={radius} must be positive.")
        self.radius = radius

    def compare(
        self, update: Update, length2: float, both: float, own2: float
    ) -> Update | Rejection:
        """Look at the distance."""
        distance = max(0.0, length2 - 2.0 * both + own2) ** 0.5
        bound = self.radius * own2**0.5
        if distance <= bound:
            return update
        detail = f"it is {distance:.3g} away from the server's own step, the bound is {bound:.3g}"
        return refused("far-from-trusted", detail)


class ZenoPlusPlus(TrustedSet):
    """Refuses what does not lead down on the trusted examples, and makes the rest equally long.

    Parameters
    ----------
    step, refresh_every : see `TrustedSet`.
    rho : >= 0, what length costs.
    eps : how far below zero the score may be.
    """

    def __init__(
        self,
        step: TrustedStep | None = None,
        refresh_every: int = 1,
        rho: float = 0.001,
        eps: float = 0.0,
    ) -> None:
        super().__init__(step, refresh_every)
        require(rho >= 0, f"ZenoPlusPlus: rho={rho} must not be negative.")
        self.rho, self.eps = rho, eps

    def compare(
        self, update: Update, length2: float, both: float, own2: float
    ) -> Update | Rejection:
        """Look at the score of the update made as long as g."""
        if not length2 or not own2:
            return update
        scale = own2**0.5 / length2**0.5
        score = scale * both / own2 - self.rho
        if score < -self.eps:
            return refused("low-score", f"its score on the trusted examples is {score:.3g}")
        stretch(update.delta, scale)
        return update


class FLTrust(TrustedSet):
    """Trusts an update as far as it goes the server's own way, and makes all equally long.

    What a liar can hide in a step that still leads down counts as little as that step does. How
    many examples a node claims does not count.

    Parameters
    ----------
    step, refresh_every : see `TrustedSet`.
    """

    def compare(
        self, update: Update, length2: float, both: float, own2: float
    ) -> Update | Rejection:
        """Weigh the update by its cosine with g."""
        if not own2:
            return replace(update, num_examples=1.0)
        trust = both / length2**0.5 / own2**0.5 if length2 else 0.0
        if trust <= 0:
            return refused("not-trusted", f"its cosine with the server's own step is {trust:.3g}")
        stretch(update.delta, own2**0.5 / length2**0.5)
        return replace(update, num_examples=trust)
