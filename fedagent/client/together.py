r"""Local training of many clients at once: `trainer`'s formula with one more axis.

    Y = (y_1 ... y_n) <- (x_1 ... x_n)                        x_k: what client k was dispatched
    y_k <- y_k - M step(grad f(y_k; batch_k) + rho (y_k - x_k))   for all k with B_k steps to go

The gradient of sum_k f(y_k; batch_k) by Y is every client's own gradient, because f(y_k) depends on
y_k alone. So the losses are computed by ``torch.func.vmap`` and one backward pass serves all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.utils.data import default_collate

from fedagent.client.device import to_device
from fedagent.client.linear import FastLinear
from fedagent.client.trainer import LocalTraining, add_proximal_gradient
from fedagent.task import Batch, Task

Tensors = dict[str, torch.Tensor]
Trained = tuple[Tensors, dict[str, float]]
"""A state dict, and the metrics that `trainer.train` returns."""


@dataclass(frozen=True)
class Part:
    """One client's part in a common training.

    Attributes
    ----------
    start : the dispatched model's state dict.
    batches : its B_k >= 1 batches, in order; of the same shapes as everybody else's.
    """

    start: Mapping[str, torch.Tensor]
    batches: Sequence[Batch]


def train_together(
    task: Task,
    model: nn.Module,
    parts: Sequence[Part],
    training: LocalTraining,
    device: torch.device,
) -> list[Trained]:
    """Train copies of `model` (on `device`; its own numbers stay as they are), one for each part.

    Each does as many steps as its part has batches; ``training.local_steps`` is not looked at. The
    results are those of `trainer.train`, to rounding.

    Raises
    ------
    RuntimeError, NotImplementedError
        If the loss cannot be computed for many models at once: it draws random numbers (dropout),
        asks a tensor for its value, or does what vmap does not know; or in mixed precision.
    """
    if training.precision != "float32":
        raise NotImplementedError(f"precision={training.precision}: clients train one by one.")
    # Those with most steps first: whoever still trains is a prefix of the stack.
    order = sorted(range(len(parts)), key=lambda k: -len(parts[k].batches))
    rows = [parts[k] for k in order]
    stack = _Stack(model, [part.start for part in rows], device)
    optimizer = training.build_optimizer(stack.parameters)
    dispatched = [p.detach().clone() for p in stack.parameters] if training.proximal_mu else []
    losses_sum = torch.zeros(len(rows), device=device)
    module = _Loss(task, model)

    def loss(tensors: Tensors, batch: Batch) -> torch.Tensor:
        named = {f"model.{name}": tensor for name, tensor in tensors.items()}
        scalar: torch.Tensor = functional_call(module, named, (batch,))
        return scalar

    results: dict[int, Trained] = {}
    model.train()
    for step in range(len(rows[0].batches)):
        active = sum(len(part.batches) > step for part in rows)
        batch = to_device(default_collate([part.batches[step] for part in rows[:active]]), device)
        optimizer.zero_grad()
        with FastLinear():
            losses = vmap(loss)(stack.first(active), batch)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        if dispatched:
            add_proximal_gradient(stack.parameters, dispatched, training.proximal_mu)
        if training.max_grad_norm is not None:
            _clip(stack.parameters, training.max_grad_norm)
        optimizer.step()  # moves also the rows that are done, whose results are taken by then
        losses_sum[:active] += losses.detach()
        for row in range(active):
            if len(rows[row].batches) == step + 1:
                metrics = {"train-loss": float(losses_sum[row]) / (step + 1)}
                results[order[row]] = stack.row(row), metrics | {"local-steps": float(step + 1)}
    return [results[k] for k in range(len(parts))]


class _Stack:
    """The clients' models: every tensor of a state dict, with one row for each client."""

    def __init__(
        self, model: nn.Module, starts: Sequence[Mapping[str, torch.Tensor]], device: torch.device
    ) -> None:
        held = model.state_dict(keep_vars=True)
        names = {id(tensor): key for key, tensor in held.items()}
        self._names = {key: names[id(tensor)] for key, tensor in held.items()}  # tied: one tensor
        self._rows = {
            name: torch.stack([start[name] for start in starts])
            .to(device)
            .requires_grad_(held[name].requires_grad)
            for name in names.values()
        }
        self.parameters = [rows for rows in self._rows.values() if rows.requires_grad]

    def first(self, count: int) -> Tensors:
        """Return the first clients' models; changes of their buffers are changes here."""
        # All of them without a slice, whose backward pass would write a model's worth of zeros.
        return {n: r if count == len(r) else r[:count] for n, r in self._rows.items()}

    def row(self, index: int) -> Tensors:
        """Return a client's state dict, in memory of its own."""
        return {key: self._rows[name][index].detach().clone() for key, name in self._names.items()}


class _Loss(nn.Module):
    """A task's loss as a module, which can be called with other parameters and buffers."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self._task, self.model = task, model

    def forward(self, batch: Batch) -> torch.Tensor:
        return self._task.loss(self.model, batch)


def _clip(parameters: Sequence[torch.Tensor], max_norm: float) -> None:
    """Scale every client's gradient to `max_norm`, as ``clip_grad_norm_`` does for one."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))
