"""Stock Flower strategies under the same eyes as ours: for honest comparisons."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedagent._flower import Run
from fedagent.admission.gate import failure_reason
from fedagent.callbacks import Callback, tell_end
from fedagent.proxy.run_clock import RunClock
from fedagent.proxy.run_end import RunResult, ShouldStop
from fedagent.proxy.server_evaluation import EvaluateFn, checked
from fedagent.proxy.termination import termination
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd, Stopping, first_reason
from fedagent.update import Kind, Outcome
from fedagent.wire.records import payload_bytes


class _OverError(Exception):
    """Ends Flower's loop, which before 1.43 knows no other way to stop before num_rounds."""

    def __init__(self, end: RunEnd) -> None:
        super().__init__(str(end))
        self.end = end


class Synchronous:
    """Runs an unmodified Flower strategy and tells callbacks about its rounds.

    Every round makes a version. On a simulated fleet the grid's own statistics are used, so
    that time, bytes and outcomes are counted as for an asynchronous strategy. SIGTERM ends the run
    after the round under way.

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
        should_stop: Callable[[int, Result], bool] | None = None,
    ) -> RunResult:
        """Run the strategy as its own ``start`` does; same arguments, same result.

        A run that ends before `num_rounds` leaves the metrics of ``evaluate_fn`` only: Flower's
        loop takes its others with it. `should_stop` sees as much.
        """
        if not isinstance(getattr(grid, "statistics", None), Statistics):
            grid = CountingGrid(grid)
        result = RunResult(end=RunEnd("completed", f"{num_rounds} rounds"))
        stopping = list(self._stopping)
        if should_stop is not None:
            stopping.append(ShouldStop(should_stop, result))
        with termination() as must_end:
            rounds = _Rounds(grid, stopping, self._callbacks, evaluate_fn, result, must_end)
            try:
                whole = self.strategy.start(
                    grid,
                    initial_arrays,
                    num_rounds,
                    timeout,
                    train_config,
                    evaluate_config,
                    rounds.evaluate,
                )
            except _OverError as over:
                result.end = over.end
            except BaseException as error:
                result.end = RunEnd.by(error)
                rounds.tell_end(because=error)
                raise
            else:
                result.train_metrics_clientapp = whole.train_metrics_clientapp
                result.evaluate_metrics_clientapp = whole.evaluate_metrics_clientapp
            rounds.tell_end()
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
                statistics.outcomes[Outcome.FAILED, failure_reason(reply.error.code)] += 1
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
        result: RunResult,
        must_end: Callable[[], bool],
    ) -> None:
        self._stopping, self._callbacks, self._evaluate_fn = stopping, callbacks, evaluate_fn
        self.statistics: Statistics = grid.statistics  # type: ignore[attr-defined]
        self._clock, self._result = RunClock(grid, self.statistics), result
        self._must_end = must_end

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        self._result.arrays = arrays
        self.statistics.version = self.statistics.server_round = server_round
        self._clock.tick()
        self._tell(lambda c: (c.on_version if server_round else c.on_start)(self.statistics))
        metrics = checked(self._evaluate_fn(server_round, arrays)) if self._evaluate_fn else None
        if metrics is not None:
            self._result.evaluate_metrics_serverapp[server_round] = metrics
            evaluation = Evaluation(
                server_round,
                self.statistics.now_s,
                self.statistics.num_updates,
                "server",
                dict(metrics),
                server_round,
            )
            self.statistics.evaluated(evaluation)
            self._tell(lambda c: c.on_evaluation(self.statistics, evaluation))
        reason = first_reason(self._stopping, self.statistics)
        if reason is not None:
            raise _OverError(RunEnd("completed", reason))
        if self._must_end():
            raise _OverError(RunEnd("stopped", "SIGTERM"))
        return metrics

    def tell_end(self, because: BaseException | None = None) -> None:
        end, arrays = self._result.end, self._result.arrays
        tell_end(self._callbacks, self.statistics, end, lambda: arrays, because)

    def _tell(self, say: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            say(callback)
