r"""Linear and logistic regression as a `Task`, small enough to be checked by hand.

linear     L(theta | x, y) = (x theta - y)^2 / 2             grad = (x theta - y) x
logistic   L(theta | x, y) = log(1 + exp(x theta)) - y x theta    grad = (sigma(x theta) - y) x
"""

from collections.abc import Iterator
from functools import cache
from itertools import repeat
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from clients.regression.data import Examples, generate
from clients.regression.model import build
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import Metrics, Task, check_partition_id, epochs


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
    seed : of the data.

    Notes
    -----
    The number to beat is what theta = 0 reaches: `Task.baseline` as it comes.
    """

    metric: ClassVar[Metric] = Metric("loss", "min")

    # No dataclass as the other tasks: its setting `num_examples` is also a method's name.
    def __init__(
        self,
        kind: str = "linear",
        *,
        num_partitions: int = 2,
        num_examples: int = 32,
        dimension: int = 2,
        noise: float = 0.1,
        difference: float = 0.5,
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
        return build(self.dimension)

    def num_examples(self, partition_id: int) -> int:
        """Return how many examples a node trains on."""
        return len(self.examples(partition_id).targets)

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Examples]:
        """Yield batches, epoch after epoch; a batch that holds everything is always the same."""
        examples = self.examples(partition_id)
        count = len(examples.targets)
        if batch_size >= count:
            yield from repeat(examples)
        for chosen in epochs(torch.arange(count), batch_size):
            yield Examples(*(tensor[chosen] for tensor in examples))

    def loss(self, model: nn.Module, batch: Examples) -> torch.Tensor:
        """Return the mean of L over a batch."""
        scores = model(batch.features).squeeze(1)
        if self.kind == "linear":
            return (scores - batch.targets).square().mean() / 2
        return F.binary_cross_entropy_with_logits(scores, batch.targets)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return the loss on validation examples: one node's, or everybody's."""
        held_out = self.examples(partition_id, is_validation=True)
        batch = Examples(*(tensor.to(device) for tensor in held_out))
        return {"loss": float(self.loss(model, batch)), "num-examples": float(len(batch.targets))}
