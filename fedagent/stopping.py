"""When and why a run ends. A condition reads `Statistics` and returns the reason to stop, or None.

A condition that holds at a certain time names it in an attribute ``due_s``, seconds since the run
began: nobody waits past it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Generic, Literal, TypeVar

from fedagent.errors import one_of, require
from fedagent.statistics import Evaluation, Statistics

Stopping = Callable[[Statistics], str | None]

EndKind = Literal["completed", "stalled", "stopped", "failed"]

S = TypeVar("S")


@dataclass(frozen=True)
class RunEnd:
    """Why and how a run ended.

    Attributes
    ----------
    kind : "completed" if a stopping condition held; "stalled" if nothing could go on; "stopped" if
        it was told to end before that (SIGTERM, Ctrl-C, Flower); "failed" if an error ended it.
    detail : which condition, or what happened, in one sentence.
    """

    kind: EndKind
    detail: str

    @property
    def is_complete(self) -> bool:
        """Whether the run did what it was asked to do: only then is its result a result."""
        return self.kind == "completed"

    @property
    def has_failed(self) -> bool:
        """Whether the run ended although nobody wanted it to."""
        return self.kind in ("stalled", "failed")

    def __str__(self) -> str:
        """Return "200 updates", or "stalled: no node delivered anything for 60 s"."""
        return self.detail if self.is_complete else f"{self.kind}: {self.detail}"

    @classmethod
    def by(cls, error: BaseException) -> "RunEnd":
        """Return the end that an exception makes; what is no `Exception` was meant to stop it."""
        return cls("failed" if isinstance(error, Exception) else "stopped", repr(error))


@dataclass(frozen=True)
class MaxRounds:
    """Stop after `rounds` rounds, Flower's ``num_rounds``: each a cohort's worth of updates."""

    rounds: int

    def __post_init__(self) -> None:
        require(self.rounds >= 0, f"MaxRounds: rounds={self.rounds} must not be negative.")

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        return f"{self.rounds} rounds" if statistics.server_round >= self.rounds else None


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

    @property
    def due_s(self) -> float:
        """When it holds, in seconds since the run began."""
        return self.seconds


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

    def value(self, evaluation: Evaluation) -> float | None:
        """Return the metric's value in one evaluation; None if it is not there, or a list."""
        value = evaluation.metrics.get(self.name)
        is_followed = evaluation.source == self.source and isinstance(value, Real)
        return float(value) if is_followed else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Baseline:
    """The number to beat: what something simple reaches on the data of a run.

    Parameters
    ----------
    name : of what reaches it, such as "week before".
    value : of the run's metric.
    """

    name: str
    value: float


class _Fold(Generic[S]):
    """What the values of a metric add up to; each is looked at once, however many there are."""

    def __init__(self, metric: Metric, start: S, step: Callable[[S, float], S]) -> None:
        self._metric, self._start, self._step = metric, start, step
        self._of: Statistics | None = None
        self._num_seen, self._state = 0, start

    def __call__(self, statistics: Statistics) -> S:
        """Return what all values so far add up to; of another run's statistics all anew."""
        if statistics is not self._of:
            self._of, self._num_seen, self._state = statistics, 0, self._start
        for evaluation in statistics.evaluations_since(self._num_seen):
            value = self._metric.value(evaluation)
            if value is not None:
                self._state = self._step(self._state, value)
        self._num_seen = statistics.num_evaluations
        return self._state


@dataclass(frozen=True)
class Target:
    """Stop once `metric` has reached `value`."""

    value: float
    metric: Metric = Metric()
    _last: _Fold[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(not math.isnan(self.value), f"Target: value={self.value} must be a number.")
        object.__setattr__(self, "_last", _Fold(self.metric, math.nan, lambda _, value: value))

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        last = self._last(statistics)
        if math.isnan(last) or self.metric.is_better(self.value, last):
            return None
        return f"{self.metric.name} {last:.4g} reached the target {self.value:g}"


@dataclass(frozen=True)
class Plateau:
    """Stop when `metric` has not improved by more than `min_delta` in `patience` evaluations."""

    patience: int = 20
    min_delta: float = 0.0
    metric: Metric = Metric()
    _best: _Fold[tuple[float, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.patience >= 1, f"Plateau: patience={self.patience} must be at least 1.")
        require(self.min_delta >= 0, f"Plateau: min_delta={self.min_delta} must not be negative.")
        object.__setattr__(self, "_best", _Fold(self.metric, (math.nan, 0), self._after))

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        _, since = self._best(statistics)
        if since < self.patience:
            return None
        return f"{self.metric.name} has not improved in {since} evaluations"

    def _after(self, before: tuple[float, int], value: float) -> tuple[float, int]:
        best, since = before
        step = self.min_delta if self.metric.mode == "max" else -self.min_delta
        is_first = math.isnan(best) and not math.isnan(value)
        if is_first or self.metric.is_better(value, best + step):
            return value, 0
        return best, since + 1


def first_reason(conditions: Sequence[Stopping], statistics: Statistics) -> str | None:
    """Return the first condition's reason to stop, or None to go on."""
    return next((reason for c in conditions if (reason := c(statistics)) is not None), None)


def next_due_s(conditions: Sequence[Stopping]) -> float:
    """Return when the first condition holds that names a time, or infinity."""
    return min([math.inf, *(getattr(condition, "due_s", math.inf) for condition in conditions)])


@dataclass(frozen=True)
class StoppingConfig:
    """All conditions as one flat configuration; None leaves one out.

    Parameters
    ----------
    max_rounds, max_versions, max_updates, max_seconds : see `MaxRounds`, `MaxVersions`,
        `MaxUpdates`, `MaxSeconds`.
    at_target : stop when the target is reached; otherwise its time is only recorded.
    patience, min_delta : see `Plateau`.
    """

    max_rounds: int | None = None
    max_versions: int | None = None
    max_updates: int | None = None
    max_seconds: float | None = None
    at_target: bool = False
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        limits = (self.max_rounds, self.max_versions, self.max_updates, self.max_seconds)
        require(
            self.at_target or any(limit is not None for limit in (*limits, self.patience)),
            "stopping: nothing would ever end the run; set max_rounds, max_versions, "
            "max_updates, max_seconds, patience or at_target.",
        )

    def conditions(self, metric: Metric, target: float | None) -> list[Stopping]:
        """Return the conditions, about `metric` and its `target` where they need one."""
        require(
            not self.at_target or target is not None,
            "stopping: at_target needs a target; set target=VALUE.",
        )
        conditions: list[Stopping] = []
        if self.max_rounds is not None:
            conditions.append(MaxRounds(self.max_rounds))
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
