"""The applications' contract: everything else (training, evaluation, reporting) is written once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from fedagent.errors import require
from fedagent.stopping import Metric

T = TypeVar("T")

Batch = Any
"""What `Task.batches` yields and `Task.loss` takes; tensors, or tuples or dicts of them."""


class Task(ABC):
    """One application: a model, each node's data, a loss and its metrics.

    A task is built once per process from the configuration, on the server and on every client; it
    loads data lazily, so that a client reads only what it needs.
    """

    metric: ClassVar[Metric] = Metric("accuracy")
    """The metric that targets, plateaus and reports follow."""

    private: ClassVar[Sequence[str]] = ()
    """Modules and tensors of the model that never leave a node: it keeps them in its Context."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Return a freshly initialised model on the CPU (the global torch seed decides it)."""

    @abstractmethod
    def num_examples(self, partition_id: int) -> int:
        """Return how many training examples a node holds, > 0."""

    @abstractmethod
    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Return an endless, shuffled iterator over one node's training batches.

        ``None`` asks for all training data pooled: central warm starts and references. Batches are
        on the CPU; order and augmentation come from the global torch seed.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean loss of one batch as a scalar that can be differentiated.

        To train clients as one batch (`Runtime`, ``vectorise``) it is recorded: then it must depend
        on nothing but `model` and `batch`.
        """

    @abstractmethod
    def evaluate(
        self, model: nn.Module, device: torch.device, partition_id: int | None = None
    ) -> dict[str, float]:
        """Return metrics of `model` (already on `device`) under at least ``self.metric.name``.

        ``partition_id=None`` means the central test split, a number that node's validation split.
        The key ``num-examples`` holds how many examples the metrics were computed on.

        The server knows nobody's private part: with ``None`` that of `model` means nothing.
        """

    def split_state(self, state: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
        """Split a state dict of the model: what all share and may travel, and what is private."""
        shared: dict[str, T] = {}
        own: dict[str, T] = {}
        for name, value in state.items():
            is_private = any(name == p or name.startswith(f"{p}.") for p in self.private)
            (own if is_private else shared)[name] = value
        return shared, own


def epochs(indices: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """Yield full batches of `indices`, epoch after epoch, each in a new order.

    The last of an epoch are left out of it where they fill no batch. Fewer than `batch_size` are
    all yielded each time. The order comes from the global torch seed.

    Parameters
    ----------
    indices : (N,) positions of a node's training examples, N >= 1.
    batch_size : >= 1.
    """
    size = min(batch_size, len(indices))
    while True:
        shuffled = indices[torch.randperm(len(indices))]
        for start in range(0, len(indices) - size + 1, size):
            yield shuffled[start : start + size]


def check_partition_id(partition_id: int, num_partitions: int) -> None:
    """Raise a ``ConfigurationError`` unless there is such a partition."""
    require(
        0 <= partition_id < num_partitions,
        f"partition-id={partition_id} does not exist: the data is dealt to {num_partitions} "
        "partitions, numbered from 0; raise num_partitions, or start the node with a smaller "
        "partition-id.",
    )
