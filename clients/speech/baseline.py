"""What a speaker can do on its own: the number that a federation has to beat."""

import torch
from torch import nn

from fedagent.client import LocalTraining, train
from fedagent.tasks import Task

ALONE = LocalTraining(optimizer="adam", learning_rate=0.003, local_steps=400, batch_size=16)
"""As many steps as pooled data needs for a word error rate of 0.04 (validation, seed 1001)."""


def train_alone(task: Task, model: nn.Module, node: int, settings: LocalTraining) -> None:
    """Train on the CPU with what one node has."""
    train(task, model, task.batches(node, settings.batch_size), settings, torch.device("cpu"))
