"""Rounds that are done: what they brought, and how Flower's loop gets past them in a resumed run.

Flower's loop begins with round 1 and keeps its model and metrics to itself. So a run that goes on
lets it begin with round 1: in a round that is done nobody is asked, and what came out of it then
comes out of it now.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

HOOKS = ("configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate")

Metrics = dict[int, MetricRecord]
Configs = tuple[ConfigRecord, ConfigRecord]


class DoneRounds:
    """Stands before a strategy's hooks, and gives them back at the end.

    Parameters
    ----------
    strategy : of Flower.
    train, evaluate : where the metrics of rounds are filed.
    configs : of training and evaluation, which hooks may change from round to round.

    Attributes
    ----------
    newest : the last round that is done; None before the initial model was looked at.
    arrays : the model after it.
    """

    UNSAVED: ClassVar = ("_hooks", "_earlier")

    def __init__(
        self,
        strategy: Strategy,
        train: Metrics,
        evaluate: Metrics,
        configs: Configs,
    ) -> None:
        self._strategy, self.configs = strategy, configs
        self._metrics = {"aggregate_train": train, "aggregate_evaluate": evaluate}
        self._hooks: dict[str, Any] = {}
        self._earlier: dict[str, Any] = {}  # what its user has put in their place
        self.newest: int | None = None
        self.arrays: ArrayRecord | None = None

    def has(self, server_round: int) -> bool:
        """Whether a round is done."""
        return self.newest is not None and server_round <= self.newest

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nodes as the strategy does, unless the round is done."""
        return self._configure("configure_train", server_round, arrays, config, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nodes as the strategy does, unless the round is done."""
        return self._configure("configure_evaluate", server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return what the strategy makes of replies, or has made of them."""
        if self.has(server_round):
            return self.arrays, self._metrics["aggregate_train"].get(server_round)
        arrays, metrics = self._hooks["aggregate_train"](server_round, replies)
        self._file("aggregate_train", server_round, metrics)
        return arrays, metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return what the strategy makes of replies, or has made of them."""
        if self.has(server_round):
            return self._metrics["aggregate_evaluate"].get(server_round)
        metrics: MetricRecord | None = self._hooks["aggregate_evaluate"](server_round, replies)
        self._file("aggregate_evaluate", server_round, metrics)
        return metrics

    def _configure(self, hook: str, server_round: int, *arguments: Any) -> Sequence[Message]:
        return [] if self.has(server_round) else self._hooks[hook](server_round, *arguments)

    def _file(self, hook: str, server_round: int, metrics: MetricRecord | None) -> None:
        if metrics is not None:
            self._metrics[hook][server_round] = metrics

    def __enter__(self) -> "DoneRounds":
        """Stand before the strategy's own hooks."""
        self._earlier = {name: vars(self._strategy).get(name) for name in HOOKS}
        for name in HOOKS:
            self._hooks[name] = getattr(self._strategy, name)
            setattr(self._strategy, name, getattr(self, name))
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the strategy back as it was."""
        for name, earlier in self._earlier.items():
            if earlier is None:
                delattr(self._strategy, name)
            else:
                setattr(self._strategy, name, earlier)
