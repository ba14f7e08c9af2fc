r"""PyTorch's stochastic gradient descent, without PyTorch's compiler.

    b <- mu b + g + lambda y            b, the momentum, begins as the first g + lambda y
    y <- y - M_k b                      g: the gradient

Any ``torch.optim.Optimizer`` imports the compiler (``torch._dynamo``) when it is made and when it
steps: 2 s and 160 MB in every process of every device, for nothing. The step itself is a function
of PyTorch's public, functional interface, and so the same to the last bit.
"""

from collections.abc import Iterable

import torch
from torch.optim.sgd import sgd


class SGD:
    """Stochastic gradient descent, as ``torch.optim.SGD`` does it.

    Parameters
    ----------
    parameters : leaves that are moved in place.
    lr : step size, > 0.
    momentum : in [0, 1); 0 keeps none.
    weight_decay : pull towards zero, >= 0.
    """

    def __init__(
        self,
        parameters: Iterable[torch.Tensor],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters = list(parameters)
        self._lr, self._momentum, self._weight_decay = lr, momentum, weight_decay
        self._momenta: dict[torch.Tensor, torch.Tensor | None] = {}
        self.param_groups = [{"params": self._parameters}]  # where a GradScaler looks

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved = [p for p in self._parameters if p.grad is not None]
        gradients = [p.grad for p in moved if p.grad is not None]
        momenta = [self._momenta.get(p) for p in moved]
        sgd(
            moved,
            gradients,
            momenta,
            has_sparse_grad=any(g.is_sparse for g in gradients),
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=self._lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        self._momenta.update(zip(moved, momenta, strict=True))
