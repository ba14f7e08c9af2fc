"""Stock Flower strategies under the same eyes as ours: for honest comparisons."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedagent._flower import Run
from fedagent.callbacks import Callback
from fedagent.grids import clock_of
from fedagent.proxy.server_evaluation import EvaluateFn
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import Stopping, first_reason
from fedagent.update import Kind, Outcome
from fedagent.wire.records import payload_bytes


class _OverError(Exception):
    """Ends Flower's loop, which knows no other way to stop before num_rounds."""


class Synchronous:
    """Runs an unmodified Flower strategy and tells callbacks about its rounds.

    Rounds are reported as versions. On a simulated fleet the grid's own statistics are used, so
    that time, bytes and outcomes are counted as for an asynchronous strategy.

    Parameters
    ----------
    strategy : any Flower strategy.
    stopping : conditions that end the run after a round; the first that holds does.
    callbacks : who watches the run.
    """

    def __init__(
        self,
        strategy: Strategy,
        stopping: Sequence[Stopping] = (),
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.strategy = strategy
        self._stopping, self._callbacks = stopping, callbacks

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the strategy as its own ``start`` does; same arguments, same result."""
        if not isinstance(getattr(grid, "statistics", None), Statistics):
            grid = CountingGrid(grid)
        rounds = _Rounds(grid, self._stopping, self._callbacks, evaluate_fn, num_rounds)
        try:
            result = self.strategy.start(
                grid,
                initial_arrays,
                num_rounds,
                timeout,
                train_config,
                evaluate_config,
                rounds.evaluate,
            )
        except _OverError:
            # Flower's loop ends with its metrics; ours are those of the evaluations it asked for.
            result = Result(evaluate_metrics_serverapp=rounds.metrics)
        except BaseException as error:
            rounds.end(f"failed: {error!r}")
            raise
        result.arrays = rounds.arrays
        rounds.end()
        return result


class CountingGrid(Grid):
    """Any grid, with the statistics that a simulated one brings along: what Flower's loop sent."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.statistics = Statistics()

    def set_run(self, run: Run) -> None:
        """Set the grid's run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The grid's run."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Build a message as the grid does."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Return the grid's nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send as the grid does, uncounted: Flower's loop does not."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull as the grid does, uncounted: Flower's loop does not."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Do as the grid does, and count train messages, replies and bytes."""
        sent = list(messages)
        replies = list(self._grid.send_and_receive(sent, timeout=timeout))
        if not sent or not sent[0].metadata.message_type.startswith(Kind.TRAIN):
            return replies
        statistics = self.statistics
        statistics.concurrency = max(statistics.concurrency, len(sent))
        statistics.bytes_down += sum(payload_bytes(m.content) for m in sent)
        for reply in replies:
            if reply.has_error():
                statistics.outcomes[Outcome.FAILED, f"error-{reply.error.code}"] += 1
            else:
                statistics.outcomes[Outcome.APPLIED, ""] += 1
                statistics.bytes_up += payload_bytes(reply.content)
                statistics.received(staleness=0)
        if missing := len(sent) - len(replies):
            statistics.outcomes[Outcome.EXPIRED, "deadline"] += missing
        return replies


class _Rounds:
    """Sits where Flower calls evaluate_fn, which it does before the first and after every round."""

    def __init__(
        self,
        grid: Grid,
        stopping: Sequence[Stopping],
        callbacks: Sequence[Callback],
        evaluate_fn: EvaluateFn | None,
        num_rounds: int,
    ) -> None:
        self._clock = clock_of(grid)
        self._start_s, self._wall_start_s = self._clock.now(), time.monotonic()
        self._stopping, self._callbacks, self._evaluate_fn = stopping, callbacks, evaluate_fn
        self.statistics: Statistics = grid.statistics  # type: ignore[attr-defined]
        self.arrays = ArrayRecord()
        self.metrics: dict[int, MetricRecord] = {}
        self.reason = f"{num_rounds} rounds"

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        self.arrays = arrays
        self.statistics.version = server_round
        self.statistics.now_s = self._clock.now() - self._start_s
        self.statistics.wall_s = time.monotonic() - self._wall_start_s
        self._tell(lambda c: (c.on_version if server_round else c.on_start)(self.statistics))
        metrics = self._evaluate_fn(server_round, arrays) if self._evaluate_fn else None
        if metrics is not None:
            self.metrics[server_round] = metrics
            evaluation = Evaluation(
                server_round,
                self.statistics.now_s,
                self.statistics.num_updates,
                "server",
                dict(metrics),
            )
            self.statistics.evaluations.append(evaluation)
            self._tell(lambda c: c.on_evaluation(self.statistics, evaluation))
        reason = first_reason(self._stopping, self.statistics)
        if reason is not None:
            self.reason = reason
            raise _OverError
        return metrics

    def end(self, reason: str = "") -> None:
        self._tell(lambda c: c.on_end(self.statistics, reason or self.reason, lambda: self.arrays))

    def _tell(self, say: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            say(callback)
