"""What an agent learns from one node alone: the number that a federation has to beat."""

import torch
from torch import nn

from fedagent.client import LocalTraining, train
from fedagent.tasks import Task


def train_alone(task: Task, model: nn.Module, node: int, steps: int) -> None:
    """Train on one node's physics, on the CPU, with the settings of pooled training."""
    training = LocalTraining(
        "sgd", 0.03, local_steps=steps, batch_size=16, momentum=0.9, max_grad_norm=0.5
    )
    train(task, model, task.batches(node, training.batch_size), training, torch.device("cpu"))
