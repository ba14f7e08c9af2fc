"""A task whose training can be computed by hand: f(y; target) = |y - target|^2 / 2."""

import torch
from torch import nn

from fedagent.tasks.task import Task


class Point(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.y = nn.Parameter(torch.tensor(start))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))


class QuadraticTask(Task):
    """Node k is pulled towards k + 1; its batches differ by noise from the global seed."""

    def __init__(self, start=(0.0, 0.0), noise=0.0):
        self.start = start
        self.noise = noise
        self.batches_drawn = 0
        self.num_partitions = 100

    def build_model(self):
        torch.rand(7)  # a real model draws its weights from the global seed
        return Point(list(self.start))

    def num_examples(self, partition_id):
        return 10 * (partition_id + 1)

    def batches(self, partition_id, batch_size):
        while True:
            self.batches_drawn += 1
            yield {"target": torch.full((2,), partition_id + 1.0) + self.noise * torch.rand(2)}

    def loss(self, model, batch):
        model.seen += 1
        return 0.5 * (model.y - batch["target"]).square().sum()

    def measure(self, model, device, partition_id):
        return {"accuracy": float(model.y.detach().sum()), "num-examples": 3.0}
