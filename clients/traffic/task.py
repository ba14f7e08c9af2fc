"""Forecasts of a sensor network as a `Task`: every sensor is a node and keeps its counts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import nn

from clients.traffic.baseline import SeasonalNaive
from clients.traffic.data import AUCKLAND, Counts, load
from clients.traffic.metrics import scores
from clients.traffic.model import MODELS, Forecaster
from clients.traffic.showcase import week
from clients.traffic.trust import blended, forecast, trust
from clients.traffic.windows import FIRST_ORIGIN, HORIZONS, Examples, Series, calendar
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import (
    Metrics,
    Showcase,
    Task,
    check_fractions,
    check_partition_id,
    over_nodes,
)
from fedagent.tasks.splits import sizes


@dataclass(frozen=True, eq=False)
class TrafficTask(Task):
    """Forecast a sensor's counts 1 and 24 hours ahead.

    All sensors are cut at the same two moments into training, validation and test hours, in this
    order. A forecast belongs to where the hours that it is about lie; what it is made from may lie
    before.

    Parameters
    ----------
    model : "gru" or "tcn", see `clients.traffic.model`.
    dataset : "auckland" or the path of an .npz or .h5 file, see `clients.traffic.data`.
    start, minutes_per_step : of an .npz file, which does not say.
    num_partitions : nodes; the first that many sensors take part.
    hidden : width of the network, >= 1.
    validation_fraction, test_fraction : of the hours, above 0, together below 1.
    evaluate_every_h : hours from one examined forecast to the next, >= 1. 5 shares no factor with
        the 168 of a week, so all hours of the week are examined alike.
    """

    metric: ClassVar[Metric] = Metric("mae", "min")
    baseline_name: ClassVar[str] = "week before"
    central: ClassVar[Mapping[str, Any]] = {"learning_rate": 0.002}

    model: str = "gru"
    dataset: str = AUCKLAND
    start: str = "2018-01-01T00:00"
    minutes_per_step: int = 5
    num_partitions: int = 19
    hidden: int = 32
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    evaluate_every_h: int = 5

    def __post_init__(self) -> None:
        one_of("TrafficTask: model", self.model, MODELS)
        for name in ("hidden", "evaluate_every_h"):
            value = getattr(self, name)
            require(value >= 1, f"TrafficTask: {name}={value} must be at least 1.")
        check_fractions(
            validation_fraction=self.validation_fraction, test_fraction=self.test_fraction
        )

    @cached_property
    def counts(self) -> Counts:
        """All sensors' counts, loaded on first use."""
        counts = load(self.dataset, self.start, self.minutes_per_step)
        require(
            1 <= self.num_partitions <= len(counts.sensors),
            f"TrafficTask: {self.num_partitions} nodes for {len(counts.sensors)} sensors; set "
            f"fleet.num_nodes={len(counts.sensors)} or less.",
        )
        return counts

    def remarks(self) -> Sequence[str]:
        """Return how many sensors have no node."""
        total = len(self.counts.sensors)
        if self.num_partitions == total:
            return ()
        return (
            f"{self.dataset}: {self.num_partitions} of {total} sensors take part, one a node; "
            f"{total - self.num_partitions} are left out. fleet.num_nodes={total} takes all.",
        )

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Where training, validation and test hours end."""
        total = len(self.counts.hours)
        shares = None, self.validation_fraction, self.test_fraction
        cuts = tuple(accumulate(sizes(total, shares)))
        for begin, end in zip((FIRST_ORIGIN, *cuts[:2]), cuts, strict=True):
            require(
                end - begin > max(HORIZONS),
                f"TrafficTask: {total} hours are too few for validation_fraction="
                f"{self.validation_fraction} and test_fraction={self.test_fraction}: each part "
                f"needs more than {max(HORIZONS)} hours, training {FIRST_ORIGIN} more.",
            )
        return cuts

    @cached_property
    def series(self) -> tuple[Series, ...]:
        """Each sensor's hours, standardised by its own training hours."""
        dates = calendar(self.counts.hours)
        columns = self.counts.values.T[: self.num_partitions]
        return tuple(Series.of(column, dates, self.cuts[0]) for column in columns)

    def origins(self, partition_id: int, part: str, every: int | None = None) -> torch.Tensor:
        """Return from which hours a sensor forecasts targets that all lie in a part of its hours.

        Parameters
        ----------
        part : "train", "validation" or "test". Training leaves out hours without any target.
        every : hours from one to the next; by default 1 to train, else `evaluate_every_h`.
        """
        check_partition_id(partition_id, len(self.series))
        number = ("train", "validation", "test").index(part)
        begin = FIRST_ORIGIN if number == 0 else self.cuts[number - 1] - min(HORIZONS)
        every = every or (1 if number == 0 else self.evaluate_every_h)
        origins = torch.arange(begin, self.cuts[number] - max(HORIZONS), every)
        known = self.series[partition_id].known
        found = origins[sum(known[origins + h] for h in HORIZONS) > 0]
        require(
            len(found) > 0,
            f"TrafficTask: {self.counts.sensors[partition_id]} counted nothing in the {part} hours "
            f"of {self.dataset}; leave its column out of the file.",
        )
        return found

    def build_model(self) -> nn.Module:
        """Return a fresh network."""
        return Forecaster(self.model, self.hidden)

    def num_examples(self, partition_id: int) -> int:
        """Return from how many hours a sensor learns."""
        return len(self.origins(partition_id, "train"))

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Examples]:
        """Yield batches of hours drawn at random; ``None`` draws from all sensors."""
        chosen = range(len(self.series)) if partition_id is None else (partition_id,)
        origins = [self.origins(k, "train") for k in chosen]
        parts = [self.series[k] for k in chosen]
        while True:
            # An epoch of an hourly decade is long; nobody waits for its end to see an hour again.
            shares = torch.bincount(torch.randint(len(parts), (batch_size,)), minlength=len(parts))
            drawn = [
                series.examples(own[torch.randint(len(own), (int(share),))])
                for series, own, share in zip(parts, origins, shares, strict=True)
                if share
            ]
            yield Examples(*(torch.cat(tensors) for tensors in zip(*drawn, strict=True)))

    def loss(self, model: nn.Module, batch: Examples) -> torch.Tensor:
        """Return the mean absolute error of z over the known targets."""
        errors = (model(batch.window, batch.features) - batch.targets).abs()
        return (errors * batch.is_known).sum() / batch.is_known.sum().clamp(min=1.0)

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return errors in counts per hour: of a sensor's validation hours, or of all tests.

        ``mae`` is the mean of ``mae-1h`` and ``mae-24h``; ``r2-1h`` and ``r2-24h`` say how much of
        a sensor's variance is explained. All are means over sensors, each counting the same;
        ``mae-worst`` is that of the sensor it is highest for. Before the test a sensor finds on its
        own validation hours how far to trust the network, see `clients.traffic.trust`.
        """
        if partition_id is not None:
            return self._of_sensor(model, device, partition_id, "validation")
        sensors = range(len(self.series))
        tests = [self._of_sensor(model, device, sensor, "test") for sensor in sensors]
        return over_nodes(tests, self.metric, "equal")

    def _of_sensor(self, model: nn.Module, device: torch.device, sensor: int, part: str) -> Metrics:
        series = self.series[sensor]
        batch = series.examples(self.origins(sensor, part))
        forecasts = forecast(model, device, batch)
        if part == "test":  # what a sensor has seen by then says how far it trusts the network
            seen = series.examples(self.origins(sensor, "validation", every=1))
            forecasts = blended(forecasts, batch, trust(forecast(model, device, seen), seen))
        return scores(series, forecasts, batch)

    def baseline(self) -> Metrics:
        """Return the errors of the seasonal naive forecast on the test hours."""
        return self.evaluate(SeasonalNaive(), torch.device("cpu"))

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return the first sensor's first test week."""
        sensor, begin = 0, max(self.cuts[1], FIRST_ORIGIN + max(HORIZONS))
        drawn = week(model, device, self.counts, self.series[sensor], sensor, begin)
        return Showcase({"week": drawn})
