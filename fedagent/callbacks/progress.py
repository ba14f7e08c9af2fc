"""What a run has achieved in one metric, in memory that does not grow with the run."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedagent.statistics import Evaluation
from fedagent.stopping import Metric

MOST_POINTS = 512


@dataclass
class Progress:
    """The values of a metric so far, of which few are kept.

    Parameters
    ----------
    metric : the metric that is followed.
    target : its value to reach, or None.

    Attributes
    ----------
    first, best : the first and the best value that is finite; None before there is one.
    last : the newest value; None before there is one.
    curve : values at equal distances, from the first one on; fewer than 512.
    reached : the first evaluation at the target; None before there is one.
    """

    metric: Metric
    target: float | None = None
    first: float | None = None
    best: float | None = None
    last: float | None = None
    curve: list[float] = field(default_factory=list)
    reached: Evaluation | None = None
    _num_values: int = 0
    _distance: int = 1

    def state_dict(self) -> dict[str, Any]:
        """Return all but the metric and the target: plain values."""
        return {k: v for k, v in asdict(self).items() if k not in ("metric", "target")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)
        self.reached = None if state["reached"] is None else Evaluation(**state["reached"])

    def take(self, evaluation: Evaluation) -> None:
        """Take in an evaluation; those in which the metric is not change nothing."""
        value = self.metric.value(evaluation)
        if value is None:
            return
        self.last = value
        if math.isfinite(value):
            self.first = value if self.first is None else self.first
            if self.best is None or self.metric.is_better(value, self.best):
                self.best = value
        if self.reached is None and self._is_at_target(value):
            self.reached = evaluation
        if self._num_values % self._distance == 0:
            self.curve.append(value)
        self._num_values += 1
        if len(self.curve) == MOST_POINTS:
            self.curve, self._distance = self.curve[::2], 2 * self._distance

    def _is_at_target(self, value: float) -> bool:
        if self.target is None or math.isnan(value):
            return False
        return not self.metric.is_better(self.target, value)
