"""The centralised reference: one model with everybody's vectors, trained on everybody's ratings."""

import torch

from clients.recommendation.task import RecommendationTask
from fedagent.client import LocalTraining, train


def centralised(task: RecommendationTask, training: LocalTraining) -> dict[str, float]:
    """Return the metrics that the server would report; the users are those that were trained."""
    panel = task.build_panel()
    batches = task.batches(None, training.batch_size)
    train(task, panel, batches, training, torch.device("cpu"))
    return task.measure(panel, *task.reported)
