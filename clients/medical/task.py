r"""Classification of medical images as a `Task`.

    loss = cross-entropy(f(x) + log pi_k, y)       pi_k: how frequent the classes are on node k

A node that sees tumours all day would teach f that everything is a tumour. With its own frequencies
added during training, f learns what tells the classes apart, and answers as if they were equally
frequent (arXiv 2007.07314, equation 10; for federated label skew arXiv 2209.00189).
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.medical.augmentation import mirrored_and_shifted
from clients.medical.data import PACKAGED, MedicalData, load
from clients.medical.duplicates import labels_of_groups
from clients.medical.metrics import area_under_curve, measures
from clients.medical.model import NORMS, build
from clients.vision.data import Images
from fedagent.errors import one_of, require
from fedagent.tasks.partitioning import Partition, iid
from fedagent.tasks.task import Task, check_partition_id, epochs

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""(B, C, H, W) images in [0, 1], (B,) labels, and (K,) log frequency of each class on the node."""

_EVALUATION_BATCH_SIZE = 100


class NodeSplit(NamedTuple):
    """The images of one node, as positions in the training split."""

    train: torch.Tensor
    validation: torch.Tensor


class MedicalTask(Task):
    """Classify medical images with a small residual network.

    Whole groups of near-duplicates are dealt to nodes, and whole groups of a node are held out for
    validation.

    Parameters
    ----------
    dataset : "br35h" or a name of MedMNIST, see `clients.medical.data`.
    norm : "group" or "batch".
    width : channels of the first stage, a multiple of 4.
    root : folder of decoded images and of MedMNIST's files.
    size : height and width of the images in pixels.
    test_fraction : share of br35h's groups in the test split, in (0, 1).
    split_seed : decides the test split.
    num_partitions : nodes that the other groups are dealt to.
    partition : how they are dealt, by their labels.
    seconds_per_step : (num_partitions,) speed of each node, for partitions that depend on it.
    seed : decides partitions and their validation splits.
    augment : mirror and shift training images at random.
    balance : train with each node's own class frequencies, see above.
    validation_fraction : share of a node's groups that it validates with, in (0, 1).
    """

    def __init__(
        self,
        dataset: str = PACKAGED,
        *,
        norm: str = "group",
        width: int = 8,
        root: str = "data",
        size: int = 64,
        test_fraction: float = 0.2,
        split_seed: int = 1,
        num_partitions: int = 20,
        partition: Partition = iid,
        seconds_per_step: Sequence[float] | None = None,
        seed: int = 1,
        augment: bool = True,
        balance: bool = True,
        validation_fraction: float = 0.2,
    ) -> None:
        one_of("MedicalTask: norm", norm, NORMS)
        for name, value in (
            ("test_fraction", test_fraction),
            ("validation_fraction", validation_fraction),
        ):
            require(0 < value < 1, f"MedicalTask: {name}={value} must lie between 0 and 1.")
        self.norm = norm
        self.width = width
        self.num_partitions = num_partitions
        self.partition = partition
        self.seconds_per_step = seconds_per_step
        self.seed = seed
        self.augment = augment
        self.balance = balance
        self.validation_fraction = validation_fraction
        self._load = partial(
            load, dataset, root, size=size, test_fraction=test_fraction, split_seed=split_seed
        )

    @property
    def data(self) -> MedicalData:
        """The data set, loaded on first use."""
        return self._load()

    @cached_property
    def splits(self) -> list[NodeSplit]:
        """Each node's images: its groups, cut deterministically, at least one on each side."""
        groups = self.data.groups
        parts = self.partition(
            labels_of_groups(groups, self.data.train.labels.numpy()),
            self.num_partitions,
            seed=self.seed,
            seconds_per_step=self.seconds_per_step,
        )
        splits = []
        for partition_id, part in enumerate(parts):
            shuffled = np.random.default_rng((self.seed, partition_id)).permutation(part)
            held_out = min(max(1, round(self.validation_fraction * len(part))), len(part) - 1)
            validation, train = (
                torch.from_numpy(np.flatnonzero(np.isin(groups, chosen)))
                for chosen in np.split(shuffled, [held_out])
            )
            splits.append(NodeSplit(train, validation))
        return splits

    def split(self, partition_id: int) -> NodeSplit:
        """Return the images of one node.

        Raises
        ------
        ConfigurationError
            If there is no such partition.
        """
        check_partition_id(partition_id, self.num_partitions)
        return self.splits[partition_id]

    def training_images(self, partition_id: int | None) -> torch.Tensor:
        """Return the positions of what a node trains on; ``None``: of what all of them do."""
        if partition_id is None:
            return torch.cat([split.train for split in self.splits])
        return self.split(partition_id).train

    def build_model(self) -> nn.Module:
        """Return a fresh network that fits the data set's images."""
        channels = self.data.train.pixels.shape[1]
        return build(channels, self.data.num_classes, self.norm, self.width)

    def num_examples(self, partition_id: int) -> int:
        """Return how many images a node trains on."""
        return len(self.training_images(partition_id))

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield full batches, epoch after epoch, augmented if that is asked for."""
        positions = self.training_images(partition_id)
        log_frequency = self.log_frequency(positions)
        for chosen in epochs(positions, batch_size):
            images, labels = self.data.train.batch(chosen)
            images = mirrored_and_shifted(images) if self.augment else images
            yield images, labels, log_frequency

    def log_frequency(self, positions: torch.Tensor) -> torch.Tensor:
        """Return log pi of these images, (K,); one image more of each class, so none is 0.

        Zeros, which change nothing, where the task does not balance.
        """
        num_classes = self.data.num_classes
        if not self.balance:
            return torch.zeros(num_classes)
        counts = self.data.train.labels[positions].bincount(minlength=num_classes) + 1
        return (counts / counts.sum()).log()

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of the logits with the node's class frequencies."""
        images, labels, log_frequency = batch
        return F.cross_entropy(model(images) + log_frequency, labels)

    def evaluate(
        self, model: nn.Module, device: torch.device, partition_id: int | None = None
    ) -> dict[str, float]:
        """Return accuracy, calibration error and loss; on the central test split also AUROC.

        A node may hold one class alone, which cannot be ranked.
        """
        if partition_id is not None:
            return self.measure(model, device, self.split(partition_id).validation)
        probabilities = _probabilities(model, device, self.data.test, slice(None))
        labels = self.data.test.labels
        return {"auroc": area_under_curve(probabilities, labels)} | measures(probabilities, labels)

    def measure(
        self, model: nn.Module, device: torch.device, chosen: torch.Tensor
    ) -> dict[str, float]:
        """Return the metrics without AUROC on images of the training split."""
        probabilities = _probabilities(model, device, self.data.train, chosen)
        return measures(probabilities, self.data.train.labels[chosen])


def _probabilities(
    model: nn.Module, device: torch.device, images: Images, chosen: torch.Tensor | slice
) -> torch.Tensor:
    """Return the (N, K) probabilities of the chosen images, on the CPU; restore the mode."""
    parts = torch.split(torch.arange(len(images))[chosen], _EVALUATION_BATCH_SIZE)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = [model(images.batch(part)[0].to(device)).cpu() for part in parts]
    finally:
        model.train(was_training)
    return torch.cat(logits).float().softmax(1)
