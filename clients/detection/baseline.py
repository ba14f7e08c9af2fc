"""What to beat: a node on its own, and for nuclei no learning at all."""

import numpy as np
import torch
from torch import nn

from clients.detection.boxes import Example
from clients.detection.finding import Found
from fedagent.client import LocalTraining, train
from fedagent.errors import imported
from fedagent.tasks import Task

_BINS = 256


def train_alone(task: Task, model: nn.Module, node: int, steps: int) -> None:
    """Train on one node's data, on the CPU."""
    training = LocalTraining(
        optimizer="adam", learning_rate=0.002, local_steps=steps, batch_size=16
    )
    train(task, model, task.batches(node, training.batch_size), training, torch.device("cpu"))


def otsu(example: Example) -> Found:
    """Return the connected regions on one side of Otsu's threshold (IEEE T-SMC 9, 1979).

    It is the side that covers less of the picture. Regions of fewer than 16 pixels are dust.
    """
    measure = imported("scipy.ndimage", "fedagent[detection]", "Otsu's baseline")
    grey = example.image.mean(0).numpy()
    counts, edges = np.histogram(grey, _BINS)
    values = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * values)
    with np.errstate(divide="ignore", invalid="ignore"):  # no pixel on one side: NaN
        between = (sums[-1] * below / total - sums) ** 2 / (below * (total - below))
    is_high = grey > edges[1 + int(np.nanargmax(between))]
    regions, _ = measure.label(is_high if is_high.mean() <= 0.5 else ~is_high)
    areas = np.bincount(regions.ravel())[1:]
    boxes = [
        (x.start, y.start, x.stop, y.stop)
        for (y, x), area in zip(measure.find_objects(regions), areas, strict=True)
        if area >= 16
    ]
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Found(found, torch.zeros(len(found), dtype=torch.int64), torch.ones(len(found)))
