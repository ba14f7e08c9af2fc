"""Forecasts of a sensor network as a `Task`: every sensor is a node and keeps its counts."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from clients.traffic.data import AUCKLAND, Counts, load
from clients.traffic.model import MODELS, Forecaster
from clients.traffic.windows import FIRST_ORIGIN, HORIZONS, Examples, Series, calendar
from fedagent.errors import imported, one_of, require
from fedagent.stopping import Metric
from fedagent.tasks.task import Task


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
    seconds_per_step : not used; a sensor's counts do not depend on its speed.
    """

    metric: ClassVar[Metric] = Metric("mae", "min")

    def __init__(
        self,
        model: str = "gru",
        *,
        dataset: str = AUCKLAND,
        start: str = "2018-01-01T00:00",
        minutes_per_step: int = 5,
        num_partitions: int = 19,
        hidden: int = 32,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        evaluate_every_h: int = 5,
        seconds_per_step: Sequence[float] | None = None,
    ) -> None:
        one_of("TrafficTask: model", model, MODELS)
        for name, value in (("hidden", hidden), ("evaluate_every_h", evaluate_every_h)):
            require(value >= 1, f"TrafficTask: {name}={value} must be at least 1.")
        require(
            min(validation_fraction, test_fraction) > 0 and validation_fraction + test_fraction < 1,
            f"TrafficTask: validation_fraction={validation_fraction} and test_fraction="
            f"{test_fraction} must be positive and leave something to train on.",
        )
        self.model = model
        self.dataset = dataset
        self.num_partitions = num_partitions
        self.hidden = hidden
        self.fractions = validation_fraction, test_fraction
        self.evaluate_every_h = evaluate_every_h
        self._file = start, minutes_per_step

    @cached_property
    def counts(self) -> Counts:
        """All sensors' counts, loaded on first use."""
        counts = load(self.dataset, *self._file)
        require(
            1 <= self.num_partitions <= len(counts.sensors),
            f"TrafficTask: {self.num_partitions} nodes for {len(counts.sensors)} sensors; set "
            f"fleet.num_nodes={len(counts.sensors)} or less.",
        )
        return counts

    @cached_property
    def cuts(self) -> tuple[int, int, int]:
        """Where training, validation and test hours end."""
        total = len(self.counts.hours)
        validation, test = (round(share * total) for share in self.fractions)
        cuts = total - validation - test, total - test, total
        for begin, end in zip((FIRST_ORIGIN, *cuts[:2]), cuts, strict=True):
            require(
                end - begin > max(HORIZONS),
                f"TrafficTask: {total} hours are too few for validation_fraction="
                f"{self.fractions[0]} and test_fraction={self.fractions[1]}: each part needs more "
                f"than {max(HORIZONS)} hours, training {FIRST_ORIGIN} more.",
            )
        return cuts

    @cached_property
    def series(self) -> tuple[Series, ...]:
        """Each sensor's hours, standardised by its own training hours."""
        dates = calendar(self.counts.hours)
        columns = self.counts.values.T[: self.num_partitions]
        return tuple(Series.of(column, dates, self.cuts[0]) for column in columns)

    def origins(self, partition_id: int, part: str) -> torch.Tensor:
        """Return from which hours a sensor forecasts targets that all lie in a part of its hours.

        Parameters
        ----------
        part : "train", "validation" or "test". Training leaves out hours without any target.
        """
        require(
            0 <= partition_id < len(self.series),
            f"partition-id={partition_id} does not exist: {len(self.series)} sensors take part, "
            "numbered from 0.",
        )
        number = ("train", "validation", "test").index(part)
        begin = FIRST_ORIGIN if number == 0 else self.cuts[number - 1] - min(HORIZONS)
        every = 1 if number == 0 else self.evaluate_every_h
        origins = torch.arange(begin, self.cuts[number] - max(HORIZONS), every)
        known = self.series[partition_id].known
        return origins[sum(known[origins + h] for h in HORIZONS) > 0]

    def build_model(self) -> nn.Module:
        """Return a fresh network."""
        return Forecaster(self.model, self.hidden)

    def num_examples(self, partition_id: int) -> int:
        """Return from how many hours a sensor learns."""
        return len(self.origins(partition_id, "train"))

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Examples]:
        """Yield batches of hours drawn at random; ``None`` draws from all sensors."""
        chosen = range(len(self.series)) if partition_id is None else (partition_id,)
        parts = [self.series[k] for k in chosen]
        origins = [self.origins(k, "train") for k in chosen]
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

    def evaluate(
        self, model: nn.Module, device: torch.device, partition_id: int | None = None
    ) -> dict[str, float]:
        """Return errors in counts per hour: of a sensor's validation hours, or of all tests.

        ``mae`` is the mean of ``mae-1h`` and ``mae-24h``; ``r2-1h`` and ``r2-24h`` say how much of
        a sensor's variance is explained. All are means over sensors, each counting the same.
        """
        if partition_id is not None:
            return self._of_sensor(model, device, partition_id, "validation")
        by_sensor = [
            self._of_sensor(model, device, sensor, "test") for sensor in range(len(self.series))
        ]
        total = sum(metrics["num-examples"] for metrics in by_sensor)
        means = {key: float(np.mean([m[key] for m in by_sensor])) for key in by_sensor[0]}
        return means | {"num-examples": total}

    def _of_sensor(
        self, model: nn.Module, device: torch.device, sensor: int, part: str
    ) -> dict[str, float]:
        series = self.series[sensor]
        batch = series.examples(self.origins(sensor, part))
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                forecasts = model(batch.window.to(device), batch.features.to(device)).cpu()
        finally:
            model.train(was_training)
        return scores(series, forecasts, batch)


def scores(series: Series, forecasts: torch.Tensor, batch: Examples) -> dict[str, float]:
    """Return MAE in counts and R^2 of (B, H) forecasts of z, over the known targets."""
    # Imported here because it takes seconds, which a node that only trains need not spend.
    torchmetrics = imported("torchmetrics.functional", "fedagent[traffic]", "Scoring forecasts")
    found = {}
    for number, horizon in enumerate(HORIZONS):
        known = batch.is_known[:, number] > 0
        pair = forecasts[known, number].double(), batch.targets[known, number].double()
        found[f"mae-{horizon}h"] = float(torchmetrics.mean_absolute_error(*pair)) * series.deviation
        found[f"r2-{horizon}h"] = float(torchmetrics.r2_score(*pair))
    mae = sum(found[f"mae-{horizon}h"] for horizon in HORIZONS) / len(HORIZONS)
    return {"mae": mae, **found, "num-examples": float(len(forecasts))}
