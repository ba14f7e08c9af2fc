r"""FADAS: AMSGrad on the mean of a buffer, with a delay-adaptive learning rate.

    after K updates:   Delta = (1/K) sum_i Delta_i
                       m <- beta1 m + (1 - beta1) Delta
                       v <- beta2 v + (1 - beta2) Delta^2,    vhat <- max(vhat, v)
                       eta_t = eta                     if tau_max <= tau_c
                               min(eta, 1 / tau_max)   otherwise,    tau_max = max tau_i
                       x <- x + eta_t m / (sqrt(vhat) + eps)

Wang, Wang, Lu, Chen, "FADAS: Towards Federated Adaptive Asynchronous Optimization", ICML 2024,
arXiv 2407.18365. m, v and vhat start at 0 and, unlike Adam's, are not bias-corrected. The cap is
1 / tau_max, not eta / tau_max: with a small eta only very late buffers feel it.

Running means and variances of normalisations are no parameters: they are averaged, x + Delta.

Memory: 3 x P floats besides the buffer.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.rules.buffered import BufferedRule
from fedagent.update import Update


class FADAS(BufferedRule):
    """FADAS's server rule.

    Parameters
    ----------
    buffer_size : K >= 1, updates per published version; None leaves publishing to the clock.
    server_learning_rate : eta > 0, about the largest change of a parameter per version.
    beta1, beta2 : in [0, 1), memory of the mean and of its square; 0 forgets at once.
    eps : > 0; a large one makes the step proportional to the mean.
    max_staleness : tau_c >= 0, the largest staleness in a buffer at which eta stays what it is.
    """

    def __init__(
        self,
        buffer_size: int | None = 5,
        server_learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.99,
        eps: float = 1e-8,
        max_staleness: int = 1,
    ) -> None:
        super().__init__(buffer_size)
        for name, value, holds, must in (
            ("server_learning_rate", server_learning_rate, server_learning_rate > 0, "be positive"),
            ("beta1", beta1, 0 <= beta1 < 1, "lie in [0, 1)"),
            ("beta2", beta2, 0 <= beta2 < 1, "lie in [0, 1)"),
            ("eps", eps, eps > 0, "be positive"),
            ("max_staleness", max_staleness, max_staleness >= 0, "not be negative"),
        ):
            require(holds, f"FADAS: {name}={value} must {must}.")
        self.server_learning_rate = server_learning_rate
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.max_staleness = max_staleness
        self._tau_max = 0
        self._moments: dict[str, torch.Tensor] = {}

    def weigh_equally(self) -> None:
        """They do."""

    def add(self, model: FlatModel, update: Update) -> None:
        """Add Delta_i to the buffer."""
        self.buffer.add(update.delta)
        self._tau_max = max(self._tau_max, update.staleness)

    def step(self, model: FlatModel, mean: torch.Tensor) -> None:
        """Do AMSGrad's step along the mean, shorter if an update in it was late."""
        spec = model.spec
        statistics = [spec.offsets[s.name] for s in spec.arrays if s.is_averaged and s.is_statistic]
        averaged = [model.vector[part] + mean[part] for part in statistics]
        self._amsgrad(model.vector, mean, self._learning_rate(self._tau_max))
        for part, values in zip(statistics, averaged, strict=True):
            model.vector[part] = values
        self._tau_max = 0

    def _learning_rate(self, tau_max: int) -> float:
        eta = self.server_learning_rate
        return eta if tau_max <= self.max_staleness else min(eta, 1.0 / tau_max)

    def _amsgrad(self, model: torch.Tensor, mean: torch.Tensor, eta_t: float) -> None:
        """Move the (P,) model; the (P,) mean points downhill already."""
        if not self._moments:
            self._moments = {name: torch.zeros_like(model) for name in ("m", "v", "v_hat")}
        moments = (self._moments[name] for name in ("m", "v", "v_hat"))
        for x, delta, m, v, v_hat in blocks(model, mean, *moments):
            m.lerp_(delta, 1.0 - self.beta1)
            v.mul_(self.beta2).addcmul_(delta, delta, value=1.0 - self.beta2)
            torch.maximum(v_hat, v, out=v_hat)
            x.addcdiv_(m, v_hat.sqrt().add_(self.eps), value=eta_t)

    def extra_state(self) -> dict[str, Any]:
        """Return the buffer's largest staleness, and the moments."""
        return {
            "tau_max": self._tau_max,
            "moments": {name: moment.clone() for name, moment in self._moments.items()},
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `extra_state` returned."""
        self._tau_max = int(state["tau_max"])
        self._moments = {name: moment.clone() for name, moment in state["moments"].items()}
