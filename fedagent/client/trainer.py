r"""Local training: what a node does between two messages, written once for all tasks.

    y <- x                                              x: the dispatched model
    B_k times:   y <- y - M_k step(grad f(y; batch) + rho (y - x))

The proximal term (rho/2) |y - x|^2 is FedAsync's (arXiv 1903.03934, Algorithm 1) and FedProx's
(arXiv 1812.06127); rho = 0 switches it off.

With `precision` bfloat16 or float16 the loss is computed in it (``torch.autocast``); y, its
gradient and the step stay in float32: what is sent is the same whatever a node computes in.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from fedagent.client.at_rest import at_rest
from fedagent.client.device import to_device
from fedagent.client.sgd import SGD
from fedagent.errors import ConfigurationError, one_of, require
from fedagent.tasks.task import Batch, Task

Optimizer = Literal["sgd", "adam"]
Precision = Literal["float32", "bfloat16", "float16"]

_DTYPES: dict[Precision, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class PrivateTraining:
    """How a node fits what is its own to a dispatched model, before it trains or evaluates.

    Parameters
    ----------
    steps : optimizer steps on the private part alone, >= 1.
    learning_rate : step size of these, > 0.
    optimizer : "adam" or "sgd"; all else (momentum of SGD, weight decay, precision and the like) is
        as in the `LocalTraining` that this belongs to.
    """

    steps: int = 20
    learning_rate: float = 0.05
    optimizer: Optimizer = "adam"

    def __post_init__(self) -> None:
        one_of("PrivateTraining: optimizer", self.optimizer, get_args(Optimizer))
        require(self.steps >= 1, f"PrivateTraining: steps={self.steps} must be at least 1.")
        require(
            self.learning_rate > 0,
            f"PrivateTraining: learning_rate={self.learning_rate} must be positive.",
        )


@dataclass(frozen=True)
class LocalTraining:
    """How a node trains. A dispatch may override local steps, learning rate and batch size.

    Parameters
    ----------
    optimizer : "sgd" or "adam"; its state starts anew with every dispatch.
    learning_rate : M_k > 0.
    local_steps : B_k >= 1, batches per dispatch.
    batch_size : examples per batch, >= 1.
    momentum : of SGD, in [0, 1).
    weight_decay : >= 0.
    proximal_mu : rho >= 0, the pull towards the dispatched model.
    max_grad_norm : clip the gradient (with its proximal part) to this norm, > 0; None never clips.
    private : of tasks with a private part: fit that first, and leave it as it is while the shared
        part is trained (FedAlt, arXiv 2204.03809, Algorithm 2). None trains both together (FedSim,
        Algorithm 3).
    precision : of the loss: "float32", which leaves it to the model; "bfloat16"; or "float16", on
        CUDA only, whose gradients are scaled (Micikevicius et al., arXiv 1710.03740).
    """

    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.05
    local_steps: int = 8
    batch_size: int = 32
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal_mu: float = 0.0
    max_grad_norm: float | None = None
    private: PrivateTraining | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        one_of("LocalTraining: optimizer", self.optimizer, get_args(Optimizer))
        one_of("LocalTraining: precision", self.precision, get_args(Precision))
        # Written so that NaN fails too: every comparison with NaN is false.
        for name, value, holds, must in (
            ("learning_rate", self.learning_rate, self.learning_rate > 0, "be positive"),
            ("local_steps", self.local_steps, self.local_steps >= 1, "be at least 1"),
            ("batch_size", self.batch_size, self.batch_size >= 1, "be at least 1"),
            ("momentum", self.momentum, 0 <= self.momentum < 1, "lie in [0, 1)"),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0, "not be negative"),
            ("proximal_mu", self.proximal_mu, self.proximal_mu >= 0, "not be negative"),
            (
                "max_grad_norm",
                self.max_grad_norm,
                self.max_grad_norm is None or self.max_grad_norm > 0,
                "be positive, or null",
            ),
        ):
            require(holds, f"LocalTraining: {name}={value} must {must}.")
        require(
            self.momentum == 0 or self.optimizer == "sgd",
            f"LocalTraining: momentum={self.momentum} belongs to sgd; adam has its own. Set "
            "momentum=0 or optimizer=sgd.",
        )

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which the loss is computed.

        Raises
        ------
        ConfigurationError
            If the device cannot compute in this precision.
        """
        dtype = _DTYPES[self.precision]
        if dtype is None:
            return nullcontext()
        require(
            dtype is torch.bfloat16 or device.type == "cuda",
            f"LocalTraining: precision=float16 needs CUDA, this is {device.type}; set "
            "client.precision=bfloat16, or float32.",
        )
        require(
            device.type != "cuda" or dtype is torch.float16 or torch.cuda.is_bf16_supported(),
            "LocalTraining: this GPU cannot compute in bfloat16; set client.precision=float16.",
        )
        return torch.autocast(device.type, dtype)

    def build_optimizer(self, parameters: Iterable[torch.Tensor]) -> torch.optim.Adam | SGD:
        """Return a fresh optimizer of these parameters."""
        if self.optimizer == "adam":
            return torch.optim.Adam(
                parameters, lr=self.learning_rate, weight_decay=self.weight_decay
            )
        return SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


def train(
    task: Task,
    model: nn.Module,
    batches: Iterator[Batch],
    training: LocalTraining,
    device: torch.device,
) -> dict[str, float]:
    """Train `model` (already on `device`) in place for exactly `training.local_steps` batches.

    What is at rest, see `Task.shared`, stays as it is.

    Returns
    -------
    dict[str, float]
        "train-loss": the task's loss, without the proximal term, averaged over the steps;
        "local-steps": B_k.

    Raises
    ------
    ConfigurationError
        If `batches` ends before that, or the device cannot compute in ``training.precision``.
    """
    with at_rest(task, model):
        return _train(task, model, batches, training, device)


def _train(
    task: Task,
    model: nn.Module,
    batches: Iterator[Batch],
    training: LocalTraining,
    device: torch.device,
) -> dict[str, float]:
    autocast = training.autocast(device)
    # Begins anew with every dispatch: the usual first scale, 65,536, may overflow a few times, and
    # every overflow would cost one of few steps.
    scaler = torch.amp.GradScaler(
        device.type, init_scale=2.0**10, enabled=training.precision == "float16"
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    dispatched = [p.detach().clone() for p in trained] if training.proximal_mu else []
    optimizer = training.build_optimizer(trained)
    total_loss = torch.zeros((), device=device)
    steps = 0
    model.train()
    for _, batch in zip(range(training.local_steps), batches, strict=False):
        optimizer.zero_grad()
        with autocast:
            loss = task.loss(model, to_device(batch, device))
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)  # type: ignore[arg-type]  # looks at nothing that SGD has not
        if dispatched:
            add_proximal_gradient(trained, dispatched, training.proximal_mu)
        if training.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(trained, training.max_grad_norm)
        scaler.step(optimizer)  # type: ignore[arg-type]
        scaler.update()
        total_loss += loss.detach()  # stays on the device: a copy per step would stall a GPU
        steps += 1
    if steps < training.local_steps:
        raise ConfigurationError(
            f"{type(task).__name__}.batches ended after {steps} of {training.local_steps} batches; "
            "it must be endless (start the next epoch when one ends)."
        )
    return {"train-loss": float(total_loss) / steps, "local-steps": float(steps)}


@torch.no_grad()
def add_proximal_gradient(
    parameters: Iterable[torch.Tensor], dispatched: Iterable[torch.Tensor], mu: float
) -> None:
    """Add the gradient of (mu/2) |y - x|^2, which is mu (y - x), to the gradients."""
    for parameter, anchor in zip(parameters, dispatched, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter - anchor, alpha=mu)
