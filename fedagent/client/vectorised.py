r"""Local training of many clients at once: `trainer`'s formula with one more axis.

Y = (y_1 ... y_n) <- (x_1 ... x_n)                        x_k: what client k was dispatched
y_k <- y_k - M step(grad f(y_k; batch_k) + rho (y_k - x_k))   for all k with B_k steps to go
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import default_collate

from fedagent.client.device import to_device
from fedagent.client.gradients import GradientsOfMany, Tensors
from fedagent.client.trainer import LocalTraining, add_proximal_gradient
from fedagent.tasks.task import Batch, Task

Trained = tuple[Tensors, dict[str, float]]
"""A state dict, and the metrics that `trainer.train` returns."""


@dataclass(frozen=True)
class ClientShare:
    """One client's share in a common training.

    Attributes
    ----------
    start : the dispatched model's state dict.
    batches : its B_k >= 1 batches, in order; of the same shapes as those of the others.
    """

    start: Mapping[str, torch.Tensor]
    batches: Sequence[Batch]


class VectorisedTrainer:
    """Trains copies of a model, one for each client.

    Parameters
    ----------
    task : the application.
    model : on `device`; its own numbers stay as they are.
    device : where they are trained.
    """

    def __init__(self, task: Task, model: nn.Module, device: torch.device) -> None:
        self._model, self._device = model, device
        self._gradients = GradientsOfMany(task, model)

    def train(self, shares: Sequence[ClientShare], training: LocalTraining) -> list[Trained]:
        """Train a copy for each share.

        Each does as many steps as its share has batches; ``training.local_steps`` is not looked at.
        The results are those of `trainer.train`, to rounding.

        Raises
        ------
        RuntimeError, NotImplementedError
            If the loss cannot be computed for many models at once: it draws random numbers
            (dropout), asks a tensor for its value, or does what vmap does not know; or in mixed
            precision.
        """
        if training.precision != "float32":
            raise NotImplementedError(f"precision={training.precision}: clients train one by one.")
        # Those with most steps first: the clients that still train are a prefix of the stack.
        order = sorted(range(len(shares)), key=lambda k: -len(shares[k].batches))
        rows = [shares[k] for k in order]
        stack = _Stack(self._model, [share.start for share in rows], self._device)
        optimizer = training.build_optimizer(stack.parameters)
        dispatched = [p.detach().clone() for p in stack.parameters] if training.proximal_mu else []
        losses_sum = torch.zeros(len(rows), device=self._device)
        results: dict[int, Trained] = {}
        self._model.train()
        for step in range(len(rows[0].batches)):
            active = sum(len(share.batches) > step for share in rows)
            batch = default_collate([share.batches[step] for share in rows[:active]])
            losses, gradients = self._gradients(stack.first(active), to_device(batch, self._device))
            stack.set_gradients(gradients)
            if dispatched:
                add_proximal_gradient(stack.parameters, dispatched, training.proximal_mu)
            if training.max_grad_norm is not None:
                _clip(stack.parameters, training.max_grad_norm)
            optimizer.step()  # moves also the rows that are done, whose results are taken by then
            losses_sum[:active] += losses
            for row in range(active):
                if len(rows[row].batches) == step + 1:
                    metrics = {"train-loss": float(losses_sum[row]) / (step + 1)}
                    results[order[row]] = stack.row(row), metrics | {"local-steps": step + 1.0}
        return [results[k] for k in range(len(shares))]


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
        return {
            n: r if count == len(r) else r.detach()[:count].requires_grad_(r.requires_grad)
            for n, r in self._rows.items()
        }

    def set_gradients(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Take the gradients of the first clients' parameters; those of the others are 0."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is None or len(gradient) == len(parameter):
                parameter.grad = gradient
            else:
                parameter.grad = torch.zeros_like(parameter)
                parameter.grad[: len(gradient)] = gradient

    def row(self, index: int) -> Tensors:
        """Return a client's state dict, in memory of its own."""
        return {key: self._rows[name][index].detach().clone() for key, name in self._names.items()}


def _clip(parameters: Sequence[torch.Tensor], max_norm: float) -> None:
    """Scale every client's gradient to `max_norm`, as ``clip_grad_norm_`` does for one."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in gradients]).norm(dim=0)
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))
