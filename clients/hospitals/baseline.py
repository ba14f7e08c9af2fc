"""What a hospital can do on its own: the number that a federation has to beat."""

import torch
from torch import nn

from fedagent.client import LocalTraining, train
from fedagent.tasks import Task

_ALONE = LocalTraining(learning_rate=0.1, local_steps=150, batch_size=64, weight_decay=0.1)
"""Chosen on the validation patients of other splits (seeds 1001 to 1012)."""


def train_alone(task: Task, model: nn.Module) -> None:
    """Train on the CPU with settings that suit one hospital."""
    train(task, model, task.batches(None, _ALONE.batch_size), _ALONE, torch.device("cpu"))
