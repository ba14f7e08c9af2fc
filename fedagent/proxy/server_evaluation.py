"""Evaluating the model once a round, without making training wait."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from flwr.app import ArrayRecord, MetricRecord

from fedagent.errors import require
from fedagent.statistics import Evaluation, Statistics

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclass(frozen=True, slots=True)
class Moment:
    """What an evaluation is filed under: fields as those of `Evaluation`."""

    server_round: int
    version: int
    now_s: float
    num_updates: int

    @classmethod
    def of(cls, statistics: Statistics) -> "Moment":
        """Return the moment that the statistics are of."""
        s = statistics
        return cls(s.server_round, s.version, s.now_s, s.num_updates)

    def evaluation(self, source: str, metrics: Mapping[str, Any]) -> Evaluation:
        """Return what was measured on the version of this moment."""
        return Evaluation(
            self.version, self.now_s, self.num_updates, source, dict(metrics), self.server_round
        )


def checked(metrics: object) -> MetricRecord | None:
    """Return what ``evaluate_fn`` has returned.

    Raises
    ------
    ConfigurationError
        If it is neither a MetricRecord nor None.
    """
    require(
        metrics is None or isinstance(metrics, MetricRecord),
        f"evaluate_fn returned a {type(metrics).__name__}, not a MetricRecord or None: return "
        "MetricRecord({'accuracy': 0.9}), or whatever the metrics are.",
    )
    return cast(MetricRecord | None, metrics)


class ServerEvaluation:
    """Runs Flower's ``evaluate_fn(server_round, arrays)`` beside the event loop.

    On a wall clock it runs in one background thread while dispatch goes on. If it is slower than
    rounds come, the newest waits and those in between are left out.
    On a virtual clock it runs at once: the clock stands still meanwhile, and what a stopping
    condition sees must not depend on how fast this machine is.
    """

    UNSAVED: ClassVar = ("_pool", "_running")

    def __init__(self, evaluate_fn: EvaluateFn | None, in_background: bool) -> None:
        self._evaluate_fn = evaluate_fn
        self._pool = ThreadPoolExecutor(1, "evaluate_fn") if in_background else None
        self._running: tuple[Moment, Future[MetricRecord | None]] | None = None
        self._waiting: tuple[Moment, ArrayRecord] | None = None
        self._last_round = -1

    def submit(self, statistics: Statistics, arrays: ArrayRecord) -> None:
        """Evaluate the model after a round, once; it replaces one that is still waiting."""
        if self._evaluate_fn is not None and statistics.server_round != self._last_round:
            self._last_round = statistics.server_round
            self._waiting = (Moment.of(statistics), arrays)
            self._start_waiting()

    def finished(self, wait: bool = False) -> Iterator[Evaluation]:
        """Yield evaluations that came in since the last call; `wait` for all of them."""
        while self._running is not None and (wait or self._running[1].done()):
            (moment, future), self._running = self._running, None
            self._start_waiting()
            if (metrics := checked(future.result())) is not None:
                yield moment.evaluation("server", metrics)

    def close(self) -> None:
        """Give the thread back."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _start_waiting(self) -> None:
        if self._running is not None or self._waiting is None or self._evaluate_fn is None:
            return
        (moment, arrays), self._waiting = self._waiting, None
        if self._pool is not None:
            future = self._pool.submit(self._evaluate_fn, moment.server_round, arrays)
        else:
            future = Future()
            future.set_result(self._evaluate_fn(moment.server_round, arrays))
        self._running = (moment, future)
