"""Any Flower strategy, made asynchronous: ``asynchronous(FedAdam(...), buffer_size=10)``."""

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent.rules.buffered import BufferSize
from fedagent.staleness import Staleness, polynomial
from fedagent.strategies.async_strategy import AsyncStrategy
from fedagent.strategies.flower_rule import FlowerRule, setting_of

_SHARED_OPTIONS = (
    "fraction_train",
    "fraction_evaluate",
    "min_train_nodes",
    "min_evaluate_nodes",
    "min_available_nodes",
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
    "train_metrics_aggr_fn",
    "evaluate_metrics_aggr_fn",
)


class _Asynchronous(AsyncStrategy):
    def __init__(self, wrapped: FlowerRule, **options: Any) -> None:
        super().__init__(wrapped, **options)
        self._wrapped = wrapped  # `rule` may be this one under a clock

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._wrapped.configure(self.proxy.statistics.version, arrays, config)
        return super().configure_train(server_round, arrays, config, grid)

    def summary(self) -> None:
        super().summary()
        self._wrapped.strategy.summary()


def asynchronous(
    strategy: Strategy,
    *,
    buffer_size: BufferSize = "cohort",
    staleness: Staleness = polynomial,
    **options: Any,
) -> AsyncStrategy:
    """Return an asynchronous strategy that lets `strategy` aggregate every `buffer_size` replies.

    By default that is a round's worth: as many as nodes train at once.

    Each reply is rebased onto the current model first; see `fedagent.strategies.flower_rule`. Keys,
    fractions and metric aggregation are the wrapped strategy's unless given in `options`, which are
    those of `AsyncOptions`.

    >>> asynchronous(FedAdam(eta=1e-2), buffer_size=10)  # doctest: +SKIP
    """
    settings = {name: setting_of(strategy, name, None) for name in _SHARED_OPTIONS}
    inherited = {name: value for name, value in settings.items() if value is not None}
    return _Asynchronous(FlowerRule(strategy, buffer_size, staleness), **{**inherited, **options})
