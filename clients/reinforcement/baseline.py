"""What an agent learns from one node alone: the number that a federation has to beat."""

from typing import Any

import torch
from torch import nn

from fedagent.client import LocalTraining, train
from fedagent.tasks import Task


def train_alone(task: Task, model: nn.Module, node: int, steps: int) -> None:
    """Train on one node's physics, on the CPU, with the settings of pooled training."""
    settings: dict[str, Any] = {"learning_rate": 0.003, **task.central}
    training = LocalTraining(
        "adam", local_steps=steps, batch_size=16, max_grad_norm=0.5, **settings
    )
    train(task, model, task.batches(node, training.batch_size), training, torch.device("cpu"))
