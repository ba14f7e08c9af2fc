r"""Losses and gradients of many clients' models at once.

    Y = (y_1 ... y_n),   d/dY sum_k f(y_k; batch_k) = (d/dy_1 f(y_1; batch_1) ... )

because f(y_k) depends on y_k alone. So the losses are computed by ``torch.func.vmap``, and one
backward pass serves all.

What PyTorch then does is the same for every step with tensors of the same shapes: a list of
operations. Finding it anew, through the task's code, vmap and autograd, takes longer than doing it
if models are small. So it is recorded (``make_fx``) when a form has come a few times, and replayed:
the same operations in the same order, thus the same bits.
"""

import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap

from fedagent.client.device import tensors_of
from fedagent.client.linear import FastLinear
from fedagent.tasks.task import Batch, Task

logger = logging.getLogger("flwr.fedagent")

Tensors = dict[str, torch.Tensor]
Step = Callable[[Tensors, Batch], tuple[torch.Tensor, list[torch.Tensor | None]]]

_WORTH_RECORDING = 50  # steps of a form, which could have saved by then what recording takes
_MAX_FORMS = 256  # of which something is remembered


class GradientsOfMany:
    """The gradient of a task's loss at many models.

    Parameters
    ----------
    task : its loss must be a function of model and batch alone: a recorded one has forgotten
        whatever else it looked at.
    model : gives the structure; its own numbers are not used.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        self._loss = _Loss(task, model)
        self._steps: dict[Hashable, Step | None] = {}
        self._counts: dict[Hashable, int] = {}

    def __call__(
        self, models: Tensors, batch: Batch
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Return N losses, and the gradients of those of `models` that require one, in order.

        Parameters
        ----------
        models : name to (N, ...); leaves. Buffers that a forward pass changes are changed in place.
        batch : every tensor (N, ...).

        Raises
        ------
        RuntimeError, NotImplementedError
            If the loss cannot be computed for many models at once.
        """
        form = tuple((t.shape, t.dtype, t.requires_grad) for t in tensors_of((models, batch)))
        step = self._steps.get(form)
        if step is None and form not in self._steps:
            step = self._recorded_by_now(form, models, batch)
        if step is None:
            return self._step(models, batch)
        with torch.no_grad():
            return step(models, batch)

    def _step(
        self, models: Tensors, batch: Batch
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        def loss(tensors: Tensors, batch: Batch) -> torch.Tensor:
            named = {f"model.{name}": tensor for name, tensor in tensors.items()}
            scalar: torch.Tensor = functional_call(self._loss, named, (batch,))
            return scalar

        with FastLinear():
            losses = vmap(loss)(models, batch)
        parameters = [tensor for tensor in models.values() if tensor.requires_grad]
        gradients = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        return losses.detach(), list(gradients)

    def _recorded_by_now(self, form: Hashable, models: Tensors, batch: Batch) -> Step | None:
        """Return the recorded step if this form has come often enough; count it otherwise."""
        if len(self._counts) >= _MAX_FORMS:
            self._counts.clear()
            self._steps.clear()
        self._counts[form] = self._counts.get(form, 0) + 1
        if self._counts[form] < _WORTH_RECORDING:
            return None
        # Imported here because it takes seconds.
        from torch.fx.experimental.proxy_tensor import make_fx  # noqa: PLC0415

        # Recording does the step: to copies.
        copies = {n: t.detach().clone().requires_grad_(t.requires_grad) for n, t in models.items()}
        step = partial(self._step)  # a bound method's signature confuses make_fx
        try:
            self._steps[form] = make_fx(step)(copies, batch)
        except Exception as error:  # whatever tracing cannot follow goes on as before
            logger.info("This loss cannot be recorded (%s), which would be faster.", error)
            self._steps[form] = None
        return self._steps[form]


class _Loss(nn.Module):
    """A task's loss as a module, which can be called with other parameters and buffers."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self._task, self.model = task, model

    def forward(self, batch: Batch) -> Any:
        return self._task.loss(self.model, batch)
