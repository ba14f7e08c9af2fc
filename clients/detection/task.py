"""Object detection as a `Task`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clients.detection import training
from clients.detection.baseline import otsu, train_alone
from clients.detection.boxes import Batch
from clients.detection.data import DATASETS, Source, load
from clients.detection.finding import find
from clients.detection.metrics import Pairs, scores
from clients.detection.model import Detector
from clients.detection.showing import SHOWN, drawn
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import Metrics, Showcase, Splits, Task, check_fractions, deal
from fedagent.tasks.partitioning import Indices, Partition, Speeds, iid


@dataclass(frozen=True, eq=False)
class DetectionTask(Task):
    """Find objects in pictures with a small one-stage detector.

    Parameters
    ----------
    dataset : "digits", "nuclei" or "voc", see `clients.detection.data`.
    path : folder, .zip or .tar.gz of nuclei or voc.
    size : pixels: height and width of a scene of digits or a crop of nuclei, the longer side that
        pictures of voc are shrunk to; >= 32.
    width : channels of the network's first convolution, a multiple of 8.
    num_test : test scenes of digits.
    test_fraction : share of the pictures in the test split, where the data names none, in (0, 1).
    num_partitions : nodes. Digits and pictures of voc are dealt to them; of nuclei the first that
        many sites take part.
    partition : how they are dealt: digits by what they are, pictures by the rarest class on them.
    seconds_per_step : speeds of the nodes, for partitions that depend on them.
    seed : decides partitions and their validation splits.
    split_seed : decides the test split.
    validation_fraction : share of a node's digits or pictures that it validates with, in (0, 1).
    balance : whether a node's own class frequencies enter its loss, see
        `clients.detection.training`.
    """

    metric: ClassVar[Metric] = Metric("map50")

    dataset: str = "digits"
    path: str | None = None
    size: int = 64
    width: int = 16
    num_test: int = 400
    test_fraction: float = 0.2
    num_partitions: int = 20
    partition: Partition = iid
    seconds_per_step: Speeds | None = None
    seed: int = 1
    split_seed: int = 1
    validation_fraction: float = 0.2
    balance: bool = True

    def __post_init__(self) -> None:
        one_of("DetectionTask: dataset", self.dataset, DATASETS)
        require(self.size >= 32, f"DetectionTask: size={self.size} must be at least 32 pixels.")
        require(
            self.width >= 8 and self.width % 8 == 0,
            f"DetectionTask: width={self.width} must be a multiple of 8: GroupNorm's groups.",
        )
        require(self.num_test >= 1, f"DetectionTask: num_test={self.num_test} must be at least 1.")
        check_fractions(test_fraction=self.test_fraction)
        check_fractions(validation_fraction=self.validation_fraction)

    @property
    def baseline_name(self) -> str:  # type: ignore[override]
        """What is to beat."""
        return "Otsu's threshold" if self.dataset == "nuclei" else "one node alone"

    @property
    def data(self) -> Source:
        """The data set, loaded on first use."""
        return load(
            self.dataset, self.path, self.size, self.num_test, self.test_fraction, self.split_seed
        )

    @cached_property
    def splits(self) -> Splits:
        """Each node's digits or pictures, as positions among those outside the test split."""
        sites = self.data.sites
        require(
            not sites or self.num_partitions <= len(sites),
            f"DetectionTask: {self.num_partitions} nodes for {len(sites)} sites "
            f"({', '.join(sites)}); set fleet.num_nodes={len(sites)} or less.",
        )
        return deal(
            self.data.labels.numpy(),
            self.num_partitions,
            by_site if sites else self.partition,
            self.validation_fraction,
            seed=self.seed,
            seconds_per_step=self.seconds_per_step,
        )

    def build_model(self) -> nn.Module:
        """Return a fresh network that fits the data set's pictures and classes."""
        return Detector(self.data.channels, len(self.data.classes), self.width)

    def num_examples(self, partition_id: int) -> int:
        """Return how many digits a node composes scenes of, or how many pictures it trains on."""
        return len(self.splits.node(partition_id).train)

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield new scenes or random crops; ``None`` draws from everybody's digits or pictures."""
        positions = self.splits.training(partition_id)
        negatives = torch.ones(1)
        if self.balance:
            everybody = self.data.shares(self.splits.training(None))
            negatives = self.data.shares(positions) / everybody.clamp(min=1e-6)
        for batch in self.data.draw(positions, batch_size):
            yield batch._replace(negatives=negatives)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return focal loss and generalised IoU, see `clients.detection.training`."""
        return training.loss(*model(batch.images), batch)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return ``map50`` and ``map`` (see `clients.detection.metrics`), with one class ``f1``.

        On the central test split also ``map50-CLASS`` of each class and, where the data has sites,
        ``map50-SITE`` and ``f1-SITE`` of each.
        """
        if partition_id is None:
            return self._of_test(list(find(model, self.data.test(), device)))
        examples = self.data.examine(self.splits.node(partition_id).validation)
        return scores(list(find(model, examples, device)), self.data.classes)

    def _of_test(self, pairs: Pairs) -> Metrics:
        """Return the metrics of what was found in the test split."""
        found = scores(pairs, self.data.classes, per_class=True)
        sites = self.data.test_sites()
        for site in self.data.sites:
            own = [pair for pair, name in zip(pairs, sites, strict=True) if name == site]
            of_site = scores(own, self.data.classes)
            found |= {f"{key}-{site}": of_site[key] for key in ("map50", "f1")}
        return found

    def baseline(self, steps: int = 800) -> Metrics:
        """Return what has to be beaten, on the test split.

        Of nuclei: Otsu's threshold and connected regions. Of digits and voc: the same detector,
        trained on the node with the most examples alone.

        Parameters
        ----------
        steps : that the detector is trained for.
        """
        if self.dataset == "nuclei":
            return self._of_test([(example, otsu(example)) for example in self.data.test()])
        sizes = [self.num_examples(node) for node in range(self.num_partitions)]
        return self.alone(sizes.index(max(sizes)), steps)

    def alone(self, node: int, steps: int) -> Metrics:
        """Return what the detector finds in the test split when one node alone trains it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = self.build_model()
            train_alone(self, model, node, steps)
            return self.evaluate(model, torch.device("cpu"))

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return test pictures with the true boxes beside those found."""
        examples = list(islice(self.data.test(), 400))
        chosen = examples[:: max(1, len(examples) // SHOWN)][:SHOWN]
        pairs = list(find(model, chosen, device))
        return Showcase(figures={"boxes": drawn(pairs, self.data.classes)})


def by_site(
    labels: npt.ArrayLike,
    num_partitions: int,
    *,
    seed: int = 1,
    seconds_per_step: Speeds | None = None,
) -> list[Indices]:
    """Deal every node its own site's pictures: a `Partition` that the data has already."""
    return [np.flatnonzero(np.asarray(labels) == site) for site in range(num_partitions)]
