r"""Classification of medical images as a `Task`.

    loss = cross-entropy(f(x) + log pi_k, y)       pi_k: how frequent the classes are on node k

A node that sees tumours all day would teach f that everything is a tumour. With its own frequencies
added during training, f learns what tells the classes apart, and answers as if they were equally
frequent (arXiv 2007.07314, equation 10; for federated label skew arXiv 2209.00189).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from clients.medical.augmentation import mirrored_and_shifted, turned
from clients.medical.baseline import random_forest
from clients.medical.br35h import CLASSES
from clients.medical.data import PACKAGED, MedicalData, load
from clients.medical.metrics import area_under_curve, measures, over_groups
from clients.medical.model import NORMS, build
from fedagent.errors import one_of
from fedagent.stopping import Metric
from fedagent.tasks import Metrics, Showcase, Splits, Task, check_fractions, deal, epochs, outputs
from fedagent.tasks.figures import confusion_matrix
from fedagent.tasks.images import Images
from fedagent.tasks.partitioning import Partition, Speeds, iid

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""(B, C, H, W) images in [0, 1], (B,) labels, and (K,) log frequency of each class on the node."""


@dataclass(frozen=True, eq=False)
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
    seconds_per_step : speeds of the nodes, for partitions that depend on them.
    seed : decides partitions and their validation splits.
    augment : whether training images are mirrored, turned and shifted at random.
    balance : whether a node's own class frequencies enter its loss, see above.
    validation_fraction : share of a node's groups that it validates with, in (0, 1).
    """

    metric: ClassVar[Metric] = Metric("auroc")
    baseline_name: ClassVar[str] = "random forest"

    dataset: str = PACKAGED
    norm: str = "group"
    width: int = 8
    root: str = "data"
    size: int = 64
    test_fraction: float = 0.2
    split_seed: int = 1
    num_partitions: int = 20
    partition: Partition = iid
    seconds_per_step: Speeds | None = None
    seed: int = 1
    augment: bool = True
    balance: bool = True
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        one_of("MedicalTask: norm", self.norm, NORMS)
        check_fractions(test_fraction=self.test_fraction)
        check_fractions(validation_fraction=self.validation_fraction)

    @property
    def data(self) -> MedicalData:
        """The data set, loaded on first use."""
        return load(
            self.dataset,
            self.root,
            size=self.size,
            test_fraction=self.test_fraction,
            split_seed=self.split_seed,
        )

    @cached_property
    def splits(self) -> Splits:
        """Each node's images, as positions in the training split; no group is torn apart."""
        return deal(
            self.data.train.labels.numpy(),
            self.num_partitions,
            self.partition,
            self.validation_fraction,
            seed=self.seed,
            seconds_per_step=self.seconds_per_step,
            groups=self.data.groups,
        )

    def build_model(self) -> nn.Module:
        """Return a fresh network that fits the data set's images."""
        images = self.data.train
        return build(images.channels, images.num_classes, self.norm, self.width)

    def num_examples(self, partition_id: int) -> int:
        """Return how many images a node trains on."""
        return len(self.splits.node(partition_id).train)

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield full batches, epoch after epoch, augmented if that is asked for."""
        positions = self.splits.training(partition_id)
        log_frequency = self.log_frequency(positions)
        for chosen in epochs(positions, batch_size):
            images, labels = self.data.train.batch(chosen)
            images = mirrored_and_shifted(turned(images)) if self.augment else images
            yield images, labels, log_frequency

    def log_frequency(self, positions: torch.Tensor) -> torch.Tensor:
        """Return log pi of these images, (K,); one image more of each class, so none is 0.

        Zeros, which change nothing, where the task does not balance.
        """
        num_classes = self.data.train.num_classes
        if not self.balance:
            return torch.zeros(num_classes)
        counts = self.data.train.labels[positions].bincount(minlength=num_classes) + 1
        return (counts / counts.sum()).log()

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of the logits with the node's class frequencies."""
        images, labels, log_frequency = batch
        return F.cross_entropy(model(images) + log_frequency, labels)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return AUROC, accuracy, calibration error and loss.

        The AUROC of a node that does not hold all classes, which cannot be ranked, is 0.5. Where
        the test split's groups are known each counts the same, and there are 95 % intervals; see
        `over_groups`.
        """
        if partition_id is not None:
            images = self.data.train.select(self.splits.node(partition_id).validation)
            probabilities = _probabilities(model, images, device)
            is_rankable = len(images.labels.unique()) == self.data.train.num_classes
            area = area_under_curve(probabilities, images.labels) if is_rankable else 0.5
            return measures(probabilities, images.labels) | {"auroc": area}
        return self._of_test(_probabilities(model, self.data.test, device))

    def baseline(self, num_trees: int = 200) -> Metrics:
        """Return the metrics of a random forest on the pixels of the test split.

        It learns from all images outside that split: also from those that nodes validate with.
        """
        train, test = self.data[:2]
        return self._of_test(random_forest(train, test, self.seed, num_trees))

    def _of_test(self, probabilities: torch.Tensor) -> Metrics:
        labels, groups = self.data.test.labels, self.data.test_groups
        if groups is not None:
            return over_groups(probabilities, labels, groups)
        return measures(probabilities, labels) | {"auroc": area_under_curve(probabilities, labels)}

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return which classes of the test split are taken for which."""
        labels, names = self.data.test.labels, CLASSES if self.dataset == PACKAGED else None
        predicted = _probabilities(model, self.data.test, device).argmax(1)
        return Showcase({"confusion": confusion_matrix(labels, predicted, names)})


def _probabilities(model: nn.Module, images: Images, device: torch.device) -> torch.Tensor:
    return outputs(model, images.inputs(), device).float().softmax(1)
