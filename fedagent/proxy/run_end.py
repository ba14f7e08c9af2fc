"""How a run ends, in Flower's words: its ``Result``, and its ``should_stop``."""

from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import MetricRecord
from flwr.serverapp.strategy import Result

from fedagent.statistics import KEPT_EVALUATIONS, KEPT_VALUES, Statistics, num_values
from fedagent.stopping import RunEnd


class Newest(dict[int, MetricRecord]):
    """Metrics by round, of the newest thousand rounds; of fewer where rounds have many metrics."""

    _num_values = 0

    def __setitem__(self, number: int, metrics: MetricRecord) -> None:
        """File the metrics of a round, and forget the oldest if there are too many."""
        self._num_values += num_values(metrics) - num_values(self.get(number, {}))
        super().__setitem__(number, metrics)
        while len(self) > KEPT_EVALUATIONS or (self._num_values > KEPT_VALUES and len(self) > 1):
            self._num_values -= num_values(self.pop(next(iter(self))))


@dataclass(repr=False)
class RunResult(Result):
    """Flower's ``Result``, which prints as it does, and why and how the run ended.

    Its dictionaries hold the newest rounds, so that a run of weeks does not grow; callbacks and
    metrics.jsonl hear of all.

    Attributes
    ----------
    end : of a run that goes on, that it has not ended.
    """

    train_metrics_clientapp: dict[int, MetricRecord] = field(default_factory=Newest)
    evaluate_metrics_clientapp: dict[int, MetricRecord] = field(default_factory=Newest)
    evaluate_metrics_serverapp: dict[int, MetricRecord] = field(default_factory=Newest)
    end: RunEnd = field(default_factory=lambda: RunEnd("stopped", "the run has not ended"))


class ShouldStop:
    """Flower's ``should_stop(server_round, result)`` as a stopping condition: asked once a round.

    Parameters
    ----------
    should_stop : the user's question; see ``Strategy.start`` of Flower 1.43.
    result : what the run has brought so far.
    """

    def __init__(self, should_stop: Callable[[int, Result], bool], result: Result) -> None:
        self._should_stop, self._result = should_stop, result
        self._asked_at = 0

    def __call__(self, statistics: Statistics) -> str | None:
        """Return the reason to stop, or None."""
        if statistics.server_round == self._asked_at:
            return None
        self._asked_at = statistics.server_round
        stops = self._should_stop(statistics.server_round, self._result)
        return f"should_stop after round {statistics.server_round}" if stops else None
