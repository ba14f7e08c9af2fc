"""Image classification as a `Task`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from clients.vision.augmentation import RandomAffine
from clients.vision.baseline import nearest_mean
from clients.vision.data import PACKAGED, VisionData, load
from clients.vision.model import MODELS, build
from fedagent.errors import one_of
from fedagent.tasks import (
    Metrics,
    Showcase,
    Splits,
    Task,
    check_fractions,
    classification,
    deal,
    epochs,
    outputs,
)
from fedagent.tasks.figures import confusion_matrix
from fedagent.tasks.partitioning import Partition, Speeds, iid

Batch = tuple[torch.Tensor, torch.Tensor]
"""(B, C, H, W) images in [0, 1] and (B,) labels."""

_AUGMENTATION = RandomAffine()


@dataclass(frozen=True, eq=False)
class VisionTask(Task):
    """Classify images with a small network.

    Parameters
    ----------
    dataset : "mnist-packaged", "mnist", "fashion-mnist" or "cifar10".
    model : "cnn", "mlp" or "linear", see `clients.vision.model`.
    root : parent of the folders of the data sets that are not packaged.
    num_partitions : nodes that the training split is dealt to.
    partition : how it is dealt.
    seconds_per_step : speeds of the nodes, for partitions that depend on them.
    seed : decides partitions and their validation splits.
    augment : whether training images are transformed at random.
    validation_fraction : share of a node's examples that it validates with, in (0, 1).
    """

    baseline_name: ClassVar[str] = "nearest mean image"

    dataset: str = PACKAGED
    model: str = "cnn"
    root: str = "data"
    num_partitions: int = 100
    partition: Partition = iid
    seconds_per_step: Speeds | None = None
    seed: int = 1
    augment: bool = False
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        one_of("VisionTask: model", self.model, MODELS)
        check_fractions(validation_fraction=self.validation_fraction)

    @property
    def data(self) -> VisionData:
        """The data set, loaded on first use."""
        return load(self.dataset, self.root)

    @cached_property
    def splits(self) -> Splits:
        """Each node's images, as positions in the training split."""
        return deal(
            self.data.train.labels.numpy(),
            self.num_partitions,
            self.partition,
            self.validation_fraction,
            seed=self.seed,
            seconds_per_step=self.seconds_per_step,
        )

    def build_model(self) -> nn.Module:
        """Return a fresh network that fits the data set's images."""
        images = self.data.train
        return build(self.model, images.channels, images.size, images.num_classes)

    def num_examples(self, partition_id: int) -> int:
        """Return how many images a node trains on."""
        return len(self.splits.node(partition_id).train)

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield full batches, epoch after epoch, augmented if that is asked for."""
        for chosen in epochs(self.splits.training(partition_id), batch_size):
            images, labels = self.data.train.batch(chosen)
            yield (_AUGMENTATION(images) if self.augment else images), labels

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return accuracy and loss; on the central test split also ``accuracy-class-0`` and so on.

        Per-class accuracies show what an average hides: classes that only slow nodes hold.
        """
        if partition_id is not None:
            images = self.data.train.select(self.splits.node(partition_id).validation)
            return classification(outputs(model, images.inputs(), device), images.labels)
        logits, labels = outputs(model, self.data.test.inputs(), device), self.data.test.labels
        is_right = (logits.argmax(1) == labels).double()
        return classification(logits, labels) | {
            f"accuracy-class-{k}": float(is_right[labels == k].mean())
            for k in labels.unique().tolist()
        }

    def baseline(self) -> Metrics:
        """Return the metrics of the class whose mean image is nearest, on the test split."""
        return self.evaluate(nearest_mean(self.data.train), torch.device("cpu"))

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return which classes of the test split are taken for which."""
        predicted = outputs(model, self.data.test.inputs(), device).argmax(1)
        return Showcase({"confusion": confusion_matrix(self.data.test.labels, predicted)})
