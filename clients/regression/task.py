r"""Linear and logistic regression as a `Task`, small enough to be checked by hand.

linear     L(theta | x, y) = (x theta - y)^2 / 2             grad = (x theta - y) x
logistic   L(theta | x, y) = log(1 + exp(x theta)) - y x theta    grad = (sigma(x theta) - y) x
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from clients.regression.data import Examples, generate
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks.task import Task, check_partition_id


class RegressionTask(Task):
    """Fit one vector of D weights, from zero, in double precision.

    Parameters
    ----------
    kind : "linear" or "logistic".
    num_partitions : nodes, >= 1.
    num_examples : per node, for training and as many again for validation, >= 1.
    dimension : D >= 1.
    noise : standard deviation of linear targets, >= 0.
    difference : distance of a node's true weights from the common ones, >= 0.
    seconds_per_step : not used; the data does not depend on speed.
    seed : of the data.
    """

    metric: ClassVar[Metric] = Metric("loss", "min")

    def __init__(
        self,
        kind: str = "linear",
        *,
        num_partitions: int = 2,
        num_examples: int = 32,
        dimension: int = 2,
        noise: float = 0.1,
        difference: float = 0.5,
        seconds_per_step: Sequence[float] | None = None,
        seed: int = 1,
    ) -> None:
        one_of("RegressionTask: kind", kind, ("linear", "logistic"))
        for name, value, least in (
            ("num_partitions", num_partitions, 1),
            ("num_examples", num_examples, 1),
            ("dimension", dimension, 1),
            ("noise", noise, 0),
            ("difference", difference, 0),
        ):
            require(value >= least, f"RegressionTask: {name}={value} must be at least {least}.")
        self.kind = kind
        self.num_partitions = num_partitions
        self.dimension = dimension
        self._draw = cache(
            lambda node, is_validation: generate(
                kind,
                node,
                num_examples,
                dimension,
                noise,
                difference,
                seed,
                is_validation=is_validation,
            )
        )

    def examples(self, partition_id: int | None, *, is_validation: bool = False) -> Examples:
        """Return the examples of one node, or of all nodes pooled.

        Raises
        ------
        ConfigurationError
            If there is no such partition.
        """
        if partition_id is None:
            parts = [self._draw(node, is_validation) for node in range(self.num_partitions)]
            return Examples(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        check_partition_id(partition_id, self.num_partitions)
        return self._draw(partition_id, is_validation)

    def build_model(self) -> nn.Module:
        """Return x -> x theta with theta = 0."""
        model = nn.Linear(self.dimension, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(model.weight)
        return model

    def num_examples(self, partition_id: int) -> int:
        """Return how many examples a node trains on."""
        return len(self.examples(partition_id).targets)

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Examples]:
        """Yield batches, epoch after epoch; a batch that holds everything is always the same."""
        features, targets = self.examples(partition_id)
        size = min(batch_size, len(targets))
        while True:
            order = torch.arange(len(targets))
            if size < len(targets):
                order = torch.randperm(len(targets))
            for start in range(0, len(targets) - size + 1, size):
                chosen = order[start : start + size]
                yield Examples(features[chosen], targets[chosen])

    def loss(self, model: nn.Module, batch: Examples) -> torch.Tensor:
        """Return the mean of L over a batch."""
        scores = model(batch.features).squeeze(1)
        if self.kind == "linear":
            return (scores - batch.targets).square().mean() / 2
        return F.binary_cross_entropy_with_logits(scores, batch.targets)

    def evaluate(
        self, model: nn.Module, device: torch.device, partition_id: int | None = None
    ) -> dict[str, float]:
        """Return the loss on validation examples: one node's, or everybody's."""
        held_out = self.examples(partition_id, is_validation=True)
        batch = Examples(*(tensor.to(device) for tensor in held_out))
        with torch.inference_mode():
            loss = float(self.loss(model, batch))
        return {"loss": loss, "num-examples": float(len(batch.targets))}
