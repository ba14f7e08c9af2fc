"""The private part of a model: what a node keeps between messages and never sends."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from flwr.app import ArrayRecord, Context
from torch import nn

from fedagent.client.at_rest import frozen
from fedagent.client.trainer import LocalTraining, PrivateTraining, train
from fedagent.tasks.task import Batch, Task

_KEY = "fedagent-private"


def recall(task: Task, context: Context) -> dict[str, torch.Tensor]:
    """Return this node's private part: as it was kept, or freshly drawn at first."""
    if not task.private:
        return {}
    if _KEY in context.state:
        return dict(context.state.array_records[_KEY].to_torch_state_dict())
    return _private(task, task.build_model())


def keep(task: Task, context: Context, model: nn.Module) -> None:
    """Remember the private part of `model` in the node's own state."""
    if task.private:
        context.state[_KEY] = ArrayRecord(_private(task, model))


def _private(task: Task, model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t for name, t in model.state_dict().items() if task.is_private(name)}


def fit_private(
    task: Task,
    model: nn.Module,
    batches: Iterator[Batch],
    training: LocalTraining,
    device: torch.device,
) -> None:
    """Train the private part of `model` alone, if ``training.private`` asks for it."""
    if task.private and training.private is not None:
        with frozen(task.split_state(dict(model.named_parameters()))[0].values()):
            train(task, model, batches, _alone(training, training.private), device)


def _alone(training: LocalTraining, private: PrivateTraining) -> LocalTraining:
    """Return how the private part is fitted: as all is trained, but for what `private` says."""
    return replace(
        training,
        optimizer=private.optimizer,
        learning_rate=private.learning_rate,
        local_steps=private.steps,
        momentum=training.momentum if private.optimizer == "sgd" else 0.0,  # adam has its own
        proximal_mu=0.0,  # it pulls towards what was dispatched, and this part never is
    )


def train_part(
    task: Task,
    model: nn.Module,
    batches: Iterator[Batch],
    training: LocalTraining,
    device: torch.device,
) -> dict[str, float]:
    """Train as `train` does; with ``training.private`` the private part stays as it is."""
    own = task.split_state(dict(model.named_parameters()))[1] if training.private else {}
    with frozen(own.values()):
        return train(task, model, batches, training, device)
