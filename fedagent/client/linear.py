r"""Dense layers of many clients at once, with a backward pass that is as fast as the forward one.

Under ``torch.func.vmap``, PyTorch computes the gradient of (N, out, in) weights as the transpose of
X^T G, a product of matrices that lie the wrong way round in memory: on a CPU it takes several times
as long as G^T X, which is the same. Shape legend: N = clients, B = all other axes of the input.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class FastLinear(TorchFunctionMode):
    """While active, ``F.linear`` (and so ``nn.Linear``) under vmap goes through `_LinearOfMany`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace ``F.linear`` and nothing else."""
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = _Linear.apply(input, weight, bias)
    return result


class _Linear(torch.autograd.Function):
    """One client's layer, as vmap sees it."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        raise NotImplementedError("used under vmap only")

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, int]:
        def first(tensor: Tensor | None, axis: int | None) -> Tensor | None:
            if tensor is None:
                return None
            if axis is None:
                return tensor.expand(info.batch_size, *tensor.shape)
            return tensor.movedim(axis, 0)

        inputs = [first(t, d) for t, d in zip((x, weight, bias), in_dims, strict=True)]
        assert inputs[0] is not None
        x = inputs[0]
        flat = x.reshape(len(x), -1, x.shape[-1])
        y = _LinearOfMany.apply(flat, *inputs[1:])
        return y.reshape(*x.shape[:-1], y.shape[-1]), 0


class _LinearOfMany(torch.autograd.Function):
    """(N, B, in) inputs, (N, out, in) weights and (N, out) biases to (N, B, out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return torch.bmm(x, weight.mT)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            torch.bmm(gradient, weight) if of_x else None,
            torch.bmm(gradient.mT, x) if of_weight else None,
            gradient.sum(1) if of_bias else None,
        )
