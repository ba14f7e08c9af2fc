"""Image classification as a `Task`."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.vision.augmentation import RandomAffine
from clients.vision.data import PACKAGED, Images, VisionData, load
from clients.vision.model import MODELS, build
from fedagent.errors import one_of, require
from fedagent.tasks.partitioning import Partition, iid
from fedagent.tasks.task import Task, check_partition_id, epochs

Batch = tuple[torch.Tensor, torch.Tensor]
"""(B, C, H, W) images in [0, 1] and (B,) labels."""

_EVALUATION_BATCH_SIZE = 100  # more at once leave a CPU's cache: 1,000 take twice as long


class NodeSplit(NamedTuple):
    """The examples of one node, as positions in the training split."""

    train: torch.Tensor
    validation: torch.Tensor


class VisionTask(Task):
    """Classify images with a small network.

    Parameters
    ----------
    dataset : "mnist-packaged", "mnist", "fashion-mnist" or "cifar10".
    model : "cnn", "mlp" or "linear", see `clients.vision.model`.
    root : folder of the data sets that are downloaded.
    num_partitions : nodes that the training split is dealt to.
    partition : how it is dealt.
    seconds_per_step : (num_partitions,) speed of each node, for partitions that depend on it.
    seed : decides partitions and their validation splits.
    augment : transform training images at random.
    validation_fraction : share of a node's examples that it validates with, in (0, 1).
    """

    def __init__(
        self,
        dataset: str = PACKAGED,
        *,
        model: str = "cnn",
        root: str = "data",
        num_partitions: int = 100,
        partition: Partition = iid,
        seconds_per_step: Sequence[float] | None = None,
        seed: int = 1,
        augment: bool = False,
        validation_fraction: float = 0.2,
    ) -> None:
        require(
            0 < validation_fraction < 1,
            f"VisionTask: validation_fraction={validation_fraction} must lie between 0 and 1.",
        )
        one_of("VisionTask: model", model, MODELS)
        self.dataset = dataset
        self.model = model
        self.root = root
        self.num_partitions = num_partitions
        self.partition = partition
        self.seconds_per_step = seconds_per_step
        self.seed = seed
        self.augmentation = RandomAffine() if augment else None
        self.validation_fraction = validation_fraction

    @property
    def data(self) -> VisionData:
        """The data set, loaded on first use."""
        return load(self.dataset, self.root)

    @cached_property
    def splits(self) -> list[NodeSplit]:
        """Each node's examples: a partition, cut deterministically, at least one on each side."""
        parts = self.partition(
            self.data.train.labels.numpy(),
            self.num_partitions,
            seed=self.seed,
            seconds_per_step=self.seconds_per_step,
        )
        splits = []
        for partition_id, part in enumerate(parts):
            shuffled = np.random.default_rng((self.seed, partition_id)).permutation(part)
            held_out = min(max(1, round(self.validation_fraction * len(part))), len(part) - 1)
            validation, train = np.split(shuffled, [held_out])
            splits.append(NodeSplit(torch.from_numpy(train), torch.from_numpy(validation)))
        return splits

    def split(self, partition_id: int) -> NodeSplit:
        """Return the examples of one node.

        Raises
        ------
        ConfigurationError
            If there is no such partition.
        """
        check_partition_id(partition_id, self.num_partitions)
        return self.splits[partition_id]

    def build_model(self) -> nn.Module:
        """Return a fresh network that fits the data set's images."""
        return build(self.model, self.data.channels, self.data.size, self.data.num_classes)

    def num_examples(self, partition_id: int) -> int:
        """Return how many examples a node trains on."""
        return len(self.split(partition_id).train)

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield full batches, epoch after epoch, each in a new order.

        A node with fewer than `batch_size` examples yields all of them each time. ``None`` pools
        what all nodes train on; nobody's validation examples are among that.
        """
        if partition_id is None:
            indices = torch.cat([split.train for split in self.splits])
        else:
            indices = self.split(partition_id).train
        for chosen in epochs(indices, batch_size):
            images, labels = self.data.train.batch(chosen)
            yield (self.augmentation(images) if self.augmentation else images), labels

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def evaluate(
        self, model: nn.Module, device: torch.device, partition_id: int | None = None
    ) -> dict[str, float]:
        """Return accuracy and loss; on the central test split also ``accuracy-class-0`` and so on.

        Per-class accuracies show what an average hides: classes that only slow nodes hold.
        """
        if partition_id is None:
            return self._metrics(model, device, self.data.test, slice(None), per_class=True)
        validation = self.split(partition_id).validation
        return self._metrics(model, device, self.data.train, validation, per_class=False)

    def _metrics(
        self,
        model: nn.Module,
        device: torch.device,
        images: Images,
        chosen: torch.Tensor | slice,
        *,
        per_class: bool,
    ) -> dict[str, float]:
        # Counted here: torchmetrics takes seconds to import, because it looks for torchvision.
        by_class = torch.zeros(2, self.data.num_classes, dtype=torch.int64, device=device)
        correct, examples = by_class
        total_loss = torch.zeros((), device=device)
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                for part in torch.split(torch.arange(len(images))[chosen], _EVALUATION_BATCH_SIZE):
                    pixels, labels = (t.to(device) for t in images.batch(part))
                    logits = model(pixels)
                    total_loss += F.cross_entropy(logits, labels, reduction="sum")
                    examples += labels.bincount(minlength=len(examples))
                    right = labels[logits.argmax(1) == labels]
                    correct += right.bincount(minlength=len(correct))
        finally:
            model.train(was_training)
        count = int(examples.sum())
        metrics = {
            "accuracy": int(correct.sum()) / count,
            "loss": float(total_loss) / count,
            "num-examples": float(count),
        }
        if per_class:
            metrics |= {
                f"accuracy-class-{k}": right / total
                for k, (right, total) in enumerate(
                    zip(correct.tolist(), examples.tolist(), strict=True)
                )
                if total
            }
        return metrics
