"""Evaluating versions without making training wait."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from flwr.app import ArrayRecord, MetricRecord

from fedagent.statistics import Evaluation, Statistics

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


Moment = tuple[int, float, int]
"""What an evaluation is filed under: version, clock time, updates."""


def moment_of(statistics: Statistics) -> Moment:
    """Return what an evaluation of the current version is filed under."""
    return statistics.version, statistics.now_s, statistics.num_updates


class ServerEvaluation:
    """Runs Flower's ``evaluate_fn(version, arrays)`` beside the event loop.

    On a wall clock it runs in one background thread while dispatch goes on. If it is slower than
    versions come, the newest version waits and those in between are left out.
    On a virtual clock it runs at once: the clock stands still meanwhile, and what a stopping
    condition sees must not depend on how fast this machine is.
    """

    def __init__(self, evaluate_fn: EvaluateFn | None, in_background: bool) -> None:
        self._evaluate_fn = evaluate_fn
        self._pool = ThreadPoolExecutor(1, "evaluate_fn") if in_background else None
        self._running: tuple[Moment, Future[MetricRecord | None]] | None = None
        self._waiting: tuple[Moment, ArrayRecord] | None = None
        self._last_version = -1

    def submit(self, statistics: Statistics, arrays: ArrayRecord) -> None:
        """Evaluate the current version, once; it replaces one that is still waiting."""
        if self._evaluate_fn is not None and statistics.version != self._last_version:
            self._last_version = statistics.version
            self._waiting = (moment_of(statistics), arrays)
            self._start_waiting()

    def finished(self, wait: bool = False) -> Iterator[Evaluation]:
        """Yield evaluations that came in since the last call; `wait` for all of them."""
        while self._running is not None and (wait or self._running[1].done()):
            (moment, future), self._running = self._running, None
            self._start_waiting()
            if (metrics := future.result()) is not None:
                yield Evaluation(*moment, "server", dict(metrics))

    def close(self) -> None:
        """Give the thread back."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _start_waiting(self) -> None:
        if self._running is not None or self._waiting is None or self._evaluate_fn is None:
            return
        (moment, arrays), self._waiting = self._waiting, None
        if self._pool is not None:
            future = self._pool.submit(self._evaluate_fn, moment[0], arrays)
        else:
            future = Future()
            future.set_result(self._evaluate_fn(moment[0], arrays))
        self._running = (moment, future)
