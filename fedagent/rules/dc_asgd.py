r"""DC-ASGD: asynchronous SGD that corrects a late gradient for how far the model has moved.

    x <- x - eta (g + lambda g * g * (x - x_base)),    g = -Delta, products by element

    adaptive:   v <- rho v + (1 - rho) g * g,    lambda = lambda_0 / sqrt(v + 1e-7)

Zheng et al., "Asynchronous Stochastic Gradient Descent with Delay Compensation", arXiv 1609.08326:
the first-order Taylor term of the gradient between x_base and x, with lambda g * g for the diagonal
of the Hessian. lambda = 0 is `ASGD`, and so is a fresh update, whose x is x_base.

Units. The paper's gradient is one step's; ours is Delta = -M (sum of B local gradients), M the
local learning rate. The paper's constant lambda therefore becomes ``lambda_ = lambda / (M B)``:
with lambda = 0.04, M = 0.1 and B = 8 it is 0.05. The adaptive one is free of units, because
g * g / sqrt(v) scales like g: lambda_0 = 2 is the paper's, as long as Delta's elements are well
above sqrt(1e-7) = 3e-4; below that the correction fades out.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.rules.base import Rule
from fedagent.update import Update

_SMALLEST_SQUARE = 1e-7


class DCASGD(Rule):
    """DC-ASGD's server rule.

    Parameters
    ----------
    lambda_ : lambda >= 0, or lambda_0 where it is `adaptive`; 0 corrects nothing.
    adaptive : divide lambda_0 by the root of the mean square gradient, element by element.
    ema : rho in [0, 1), how slowly that mean forgets; starts at 0. Only the adaptive form uses it.
    server_learning_rate : eta > 0.
    """

    def __init__(
        self,
        lambda_: float = 2.0,
        adaptive: bool = True,
        ema: float = 0.95,
        server_learning_rate: float = 1.0,
    ) -> None:
        require(lambda_ >= 0, f"DCASGD: lambda_={lambda_} must not be negative.")
        require(0 <= ema < 1, f"DCASGD: ema={ema} must lie in [0, 1).")
        require(
            server_learning_rate > 0,
            f"DCASGD: server_learning_rate={server_learning_rate} must be positive.",
        )
        self.lambda_ = lambda_
        self.adaptive = adaptive
        self.ema = ema
        self.server_learning_rate = server_learning_rate
        self._mean_square: torch.Tensor | None = None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Apply x <- x + eta (Delta - lambda Delta * Delta * (x - x_base))."""
        if self.adaptive and self._mean_square is None:
            self._mean_square = torch.zeros_like(model.vector)
        squares = [] if self._mean_square is None else [self._mean_square]
        eta = self.server_learning_rate
        for x, delta, base, *v in blocks(model.vector, update.delta, update.base, *squares):
            compensation = (x - base).mul_(delta)
            if v:
                compensation.div_(self._root_mean_square(v[0], delta))
            x.add_(delta, alpha=eta)
            x.addcmul_(compensation, delta, value=-eta * self.lambda_)
        model.carry(update.carried, update.staleness)
        return True

    def _root_mean_square(self, v: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        v.mul_(self.ema).addcmul_(delta, delta, value=1.0 - self.ema)
        return v.add(_SMALLEST_SQUARE).sqrt_()

    def state_dict(self) -> dict[str, Any]:
        """Return the mean square gradient."""
        v = self._mean_square
        return {"mean_square": None if v is None else v.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the mean square gradient."""
        v = state["mean_square"]
        self._mean_square = None if v is None else v.clone()
