"""Stock Flower strategies under the same eyes as ours: for honest comparisons."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedagent.callbacks import Callback, tell_end
from fedagent.errors import require
from fedagent.grids import tell_statistics
from fedagent.journal import Checkpoints
from fedagent.proxy.checkpointing import Checkpointing
from fedagent.proxy.run_end import RunResult, ShouldStop
from fedagent.proxy.server_evaluation import EvaluateFn, checked
from fedagent.proxy.termination import termination
from fedagent.statistics import Evaluation
from fedagent.stopping import RunEnd, Stopping, first_reason
from fedagent.strategies.cutoff import Cutoff
from fedagent.strategies.done_rounds import DoneRounds
from fedagent.strategies.round_grid import RoundGrid
from fedagent.strategies.sampling import Sampling

MOST_EMPTY_ROUNDS = 100
"""After how many rounds in a row that bring no update a run is over: it would never end."""


class _OverError(Exception):
    """Ends Flower's loop, which before 1.43 knows no other way to stop before num_rounds."""

    def __init__(self, end: RunEnd) -> None:
        super().__init__(str(end))
        self.end = end


class Synchronous:
    """Runs an unmodified Flower strategy and tells callbacks of its rounds and their jobs.

    Every round makes a version. Time, bytes and outcomes are counted as for an asynchronous
    strategy. SIGTERM ends the run after the round under way.

    A round waits for everybody, at most for ``timeout``, unless told otherwise. The strategy then
    aggregates what came in time, and keeps its model if nothing did. What comes later is counted
    and dropped; see `fedagent.strategies.cutoff`. `MOST_EMPTY_ROUNDS` in a row are a stalled run.

    Parameters
    ----------
    strategy : any Flower strategy.
    stopping : conditions that end the run after a round; the first that holds does.
    callbacks : who watches the run.
    over_selection : >= 1, nodes asked for each that a round needs; it ends with the first that are
        enough. None asks as many as it needs.
    deadline_s : seconds of a round on the run's clock, > 0; None for no deadline.
    deadline_percentile : in (0, 100]; a deadline that is this percentile of how long jobs took so
        far, after a first round that waits for all, or for `deadline_s`.
    skip_busy : whether nodes that are at work for an earlier round are left out when the strategy
        samples for training, as long as the others are enough; see `fedagent.strategies.sampling`.
    checkpoint : when the run's state is saved, always after a round, and whether it goes on from
        what was; on a real fleet after every round. None for never. See `fedagent.journal`.

    Raises
    ------
    ConfigurationError
        If a number cannot work, or the strategy does not sample as FedAvg does and is to ask more.
    """

    def __init__(
        self,
        strategy: Strategy,
        stopping: Sequence[Stopping] = (),
        callbacks: Sequence[Callback] = (),
        over_selection: float | None = None,
        deadline_s: float | None = None,
        deadline_percentile: float | None = None,
        skip_busy: bool = True,
        checkpoint: Checkpoints | None = None,
    ) -> None:
        self.strategy, self._checkpoint = strategy, checkpoint
        self._stopping, self._callbacks = stopping, callbacks
        self._cutoff = Cutoff(over_selection, deadline_s, deadline_percentile)
        self._sampling = Sampling(strategy, over_selection, skip_busy)

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

        `should_stop` sees what the rounds have brought so far.
        """
        _require_a_cohort(self.strategy, grid)
        result = RunResult(end=RunEnd("completed", f"{num_rounds} rounds"))
        stopping = list(self._stopping)
        if should_stop is not None:
            stopping.append(ShouldStop(should_stop, result))
        watched = RoundGrid(grid, self._cutoff, self._sampling, self._callbacks)
        tell_statistics(grid, watched.statistics)
        filed = result.train_metrics_clientapp, result.evaluate_metrics_clientapp
        train_config = ConfigRecord() if train_config is None else train_config
        evaluate_config = ConfigRecord() if evaluate_config is None else evaluate_config
        configs = train_config, evaluate_config
        done = DoneRounds(self.strategy, *filed, configs)
        with ExitStack() as stack:
            must_end = stack.enter_context(termination())
            stack.enter_context(closing(watched))
            stack.enter_context(self._sampling)
            stack.enter_context(done)
            rounds = _Rounds(
                watched, stopping, self._callbacks, evaluate_fn, result, must_end, done
            )
            kinds = {"rule": type(self.strategy).__name__, "model": _described(initial_arrays)}
            saving = Checkpointing(
                rounds, self._checkpoint, self._callbacks, watched.statistics, kinds, logs=False
            )
            try:
                with closing(saving):
                    rounds.begin(saving)
                    whole = self.strategy.start(
                        watched,
                        initial_arrays if done.arrays is None else done.arrays,
                        num_rounds,
                        timeout,
                        *done.configs,
                        rounds.evaluate,
                    )
            except _OverError as error:
                result.end = error.end
            except BaseException as error:
                result.end = RunEnd.by(error)
                rounds.tell_end(because=error)
                raise
            else:
                result.train_metrics_clientapp = whole.train_metrics_clientapp
                result.evaluate_metrics_clientapp = whole.evaluate_metrics_clientapp
            rounds.tell_end()
        return result


def _described(arrays: ArrayRecord) -> str:
    return str([(name, array.dtype, list(array.shape)) for name, array in arrays.items()])


def _require_a_cohort(strategy: Strategy, grid: Grid) -> None:
    """Raise a ``ConfigurationError`` if a simulated fleet is too small for a round to begin."""
    num_nodes: int | None = getattr(grid, "num_nodes", None)
    for name in ("min_train_nodes", "min_available_nodes"):
        wanted = getattr(strategy, name, 0)
        require(
            num_nodes is None or wanted <= num_nodes,
            f"A round of {type(strategy).__name__} waits for {name}={wanted} nodes, and the fleet "
            f"has {num_nodes}: none would ever begin. Set {name}, or cohort in a configuration, to "
            f"{num_nodes} at most.",
        )


class _Rounds:
    """Sits where Flower calls evaluate_fn, which it does before the first and after every round."""

    UNSAVED: ClassVar = ("_stopping", "_callbacks", "_saving")

    def __init__(
        self,
        grid: RoundGrid,
        stopping: Sequence[Stopping],
        callbacks: Sequence[Callback],
        evaluate_fn: EvaluateFn | None,
        result: RunResult,
        must_end: Callable[[], bool],
        done: DoneRounds,
    ) -> None:
        self._stopping, self._callbacks, self._evaluate_fn = stopping, callbacks, evaluate_fn
        self.statistics, self._grid, self._result = grid.statistics, grid, result
        self._must_end, self._done = must_end, done
        self._num_empty, self._counted = 0, (0, 0)

    def begin(self, saving: Checkpointing) -> None:
        """Go on after the last round that was saved, if that is asked."""
        self._saving = saving
        if saving.restore():
            self._tell(lambda c: c.on_start(self.statistics))

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if self._done.has(server_round):
            return self._result.evaluate_metrics_serverapp.get(server_round)
        self._result.arrays = arrays
        self.statistics.version = self.statistics.server_round = server_round
        self._grid.run_clock.tick()
        self._tell(lambda c: (c.on_version if server_round else c.on_start)(self.statistics))
        metrics = self._evaluated(server_round, arrays)
        reason = first_reason(self._stopping, self.statistics)
        if reason is not None:
            raise _OverError(RunEnd("completed", reason))
        is_empty, must_end = self._is_empty(), self._must_end()
        self._done.newest, self._done.arrays = server_round, arrays
        self._saving.save(now=must_end or not self.statistics.is_virtual)
        if must_end:
            raise _OverError(RunEnd("stopped", "SIGTERM"))
        if is_empty and self._num_empty >= MOST_EMPTY_ROUNDS:
            raise _OverError(RunEnd("stalled", f"{self._num_empty} rounds without any update"))
        return metrics

    def _evaluated(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
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
        return metrics

    def _is_empty(self) -> bool:
        """Whether the last round asked nodes and got nothing; count such rounds in a row."""
        asked, received = self._counted
        self._counted = self.statistics.outcomes.total(), self.statistics.num_updates
        is_empty = self._counted[0] > asked and self._counted[1] == received
        self._num_empty = self._num_empty + 1 if is_empty else 0
        return is_empty

    def tell_end(self, because: BaseException | None = None) -> None:
        end, arrays = self._result.end, self._result.arrays
        self._grid.conduct.tell()
        tell_end(self._callbacks, self.statistics, end, lambda: arrays, because)

    def _tell(self, say: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            say(callback)
