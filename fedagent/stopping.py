"""When a run ends. A condition reads `Statistics` and returns the reason to stop, or None."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

from fedagent.errors import one_of, require
from fedagent.statistics import Evaluation, Statistics

Stopping = Callable[[Statistics], str | None]


@dataclass(frozen=True)
class MaxVersions:
    """Stop after `versions` published versions."""

    versions: int

    def __post_init__(self) -> None:
        require(self.versions >= 0, f"MaxVersions: versions={self.versions} must not be negative.")

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        return f"{self.versions} versions" if statistics.version >= self.versions else None


@dataclass(frozen=True)
class MaxUpdates:
    """Stop after `updates` client updates."""

    updates: int

    def __post_init__(self) -> None:
        require(self.updates >= 0, f"MaxUpdates: updates={self.updates} must not be negative.")

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        return f"{self.updates} updates" if statistics.num_updates >= self.updates else None


@dataclass(frozen=True)
class MaxSeconds:
    """Stop after `seconds` on the run's clock: virtual in simulation, real elsewhere."""

    seconds: float

    def __post_init__(self) -> None:
        require(self.seconds >= 0, f"MaxSeconds: seconds={self.seconds} must not be negative.")

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        return f"{self.seconds:g} seconds" if statistics.now_s >= self.seconds else None


@dataclass(frozen=True)
class Metric:
    """Which evaluated metric to follow, and which way is better.

    Parameters
    ----------
    name : key in the evaluation's metrics.
    mode : "max" if larger is better, "min" if smaller is.
    source : "server" (evaluate_fn), "clients" (federated evaluation) or "rule" (`Rule.metrics`).
    """

    name: str = "accuracy"
    mode: str = "max"
    source: str = "server"

    def __post_init__(self) -> None:
        one_of("Metric: mode", self.mode, ("max", "min"))
        one_of("Metric: source", self.source, ("server", "clients", "rule"))

    def is_better(self, value: float, than: float) -> bool:
        """Return whether `value` is strictly better; NaN never is."""
        return value > than if self.mode == "max" else value < than

    def history(self, statistics: Statistics) -> list[float]:
        """Return the metric's values so far."""
        values = (self.value(evaluation) for evaluation in statistics.evaluations)
        return [value for value in values if value is not None]

    def value(self, evaluation: Evaluation) -> float | None:
        """Return the metric's value in one evaluation; None if it is not there, or a list."""
        value = evaluation.metrics.get(self.name)
        is_followed = evaluation.source == self.source and isinstance(value, Real)
        return float(value) if is_followed else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Target:
    """Stop once `metric` has reached `value`."""

    value: float
    metric: Metric = Metric()

    def __post_init__(self) -> None:
        require(not math.isnan(self.value), f"Target: value={self.value} must be a number.")

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        history = self.metric.history(statistics)
        if not history or math.isnan(history[-1]) or self.metric.is_better(self.value, history[-1]):
            return None
        return f"{self.metric.name} {history[-1]:.4g} reached the target {self.value:g}"


@dataclass(frozen=True)
class Plateau:
    """Stop when `metric` has not improved by more than `min_delta` in `patience` evaluations."""

    patience: int = 20
    min_delta: float = 0.0
    metric: Metric = Metric()

    def __post_init__(self) -> None:
        require(self.patience >= 1, f"Plateau: patience={self.patience} must be at least 1.")
        require(self.min_delta >= 0, f"Plateau: min_delta={self.min_delta} must not be negative.")

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        best, since = math.nan, 0
        step = self.min_delta if self.metric.mode == "max" else -self.min_delta
        for value in self.metric.history(statistics):
            is_first = math.isnan(best) and not math.isnan(value)
            if is_first or self.metric.is_better(value, best + step):
                best, since = value, 0
            else:
                since += 1
        if since < self.patience:
            return None
        return f"{self.metric.name} has not improved in {since} evaluations"


def first_reason(conditions: Sequence[Stopping], statistics: Statistics) -> str | None:
    """Return the first condition's reason to stop, or None to go on."""
    return next((reason for c in conditions if (reason := c(statistics)) is not None), None)


@dataclass(frozen=True)
class StoppingConfig:
    """All conditions as one flat configuration; None leaves one out.

    Parameters
    ----------
    max_versions, max_updates, max_seconds : see `MaxVersions`, `MaxUpdates`, `MaxSeconds`.
    at_target : stop when the target is reached; otherwise its time is only recorded.
    patience, min_delta : see `Plateau`.
    """

    max_versions: int | None = None
    max_updates: int | None = None
    max_seconds: float | None = None
    at_target: bool = False
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        limits = (self.max_versions, self.max_updates, self.max_seconds, self.patience)
        require(
            self.at_target or any(limit is not None for limit in limits),
            "stopping: nothing would ever end the run; set max_versions, max_updates, "
            "max_seconds, patience or at_target.",
        )

    def conditions(self, metric: Metric, target: float | None) -> list[Stopping]:
        """Return the conditions, about `metric` and its `target` where they need one."""
        require(not self.at_target or target is not None, "stopping: at_target needs a target.")
        conditions: list[Stopping] = []
        if self.max_versions is not None:
            conditions.append(MaxVersions(self.max_versions))
        if self.max_updates is not None:
            conditions.append(MaxUpdates(self.max_updates))
        if self.max_seconds is not None:
            conditions.append(MaxSeconds(self.max_seconds))
        if self.at_target and target is not None:
            conditions.append(Target(target, metric))
        if self.patience is not None:
            conditions.append(Plateau(self.patience, self.min_delta, metric))
        return conditions
