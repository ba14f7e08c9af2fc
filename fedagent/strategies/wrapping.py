"""Any Flower strategy, made asynchronous: ``asynchronous(FedAdam(...), buffer_size=10)``.

What the strategy's own hooks do is what happens: its messages' records reach the nodes, it sees the
replies, and the metrics it returns are the run's. Nodes are chosen by the scheduler.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedMedian,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    Krum,
    MultiKrum,
    Strategy,
)

from fedagent.errors import require
from fedagent.proxy.robust import Robust
from fedagent.rules.buffered import BufferSize
from fedagent.rules.staleness import Staleness, polynomial
from fedagent.strategies.async_strategy import AsyncStrategy
from fedagent.strategies.cohort import Instructions
from fedagent.strategies.flower_reply import with_common_metrics
from fedagent.strategies.flower_rule import FlowerRule
from fedagent.strategies.layers import layers_of, setting_of
from fedagent.strategies.synchronous import Synchronous

logger = logging.getLogger("flwr.fedagent")

_SHARED_OPTIONS = (
    "fraction_train",
    "fraction_evaluate",
    "min_train_nodes",
    "min_evaluate_nodes",
    "min_available_nodes",
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
)

_ONE_PER_NODE = (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
)


class _Asynchronous(AsyncStrategy):
    """A strategy of the user's, in a loop without rounds.

    What is not found here, attributes and methods, is the wrapped strategy's.
    """

    def __init__(self, wrapped: FlowerRule, **options: Any) -> None:
        super().__init__(wrapped, **options)
        self._wrapped = wrapped  # `rule` may be this one under a clock; the last to be set here

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_wrapped" not in vars(self):  # copied, or not built yet
            raise AttributeError(name)
        return getattr(self._wrapped.strategy, name)

    def __setattr__(self, name: str, value: Any) -> None:
        is_own = "_wrapped" not in vars(self) or name in vars(self) or hasattr(type(self), name)
        if is_own:
            super().__setattr__(name, value)
            return
        setattr(self._wrapped.strategy, name, value)
        if name in _SHARED_OPTIONS:
            self.options = replace(self.options, **{name: value})

    # --- Flower's hooks, each of them the wrapped strategy's ----------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message for every job; its records are those of the strategy's own message."""
        version = self.proxy.statistics.version
        instructions = self._wrapped.configure(version, arrays, config, grid)
        messages = super().configure_train(server_round, arrays, ConfigRecord(), grid)
        return _completed(messages, instructions, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take replies in, each beside its update; the strategy aggregates every K of them."""
        newest: tuple[ArrayRecord | None, MetricRecord | None] = (None, None)
        for reply in replies:
            with self._wrapped.reading(reply):
                received = super().aggregate_train(server_round, [reply])
            newest = newest if received[1] is None else received
        return newest

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return messages for nodes that training leaves idle, unless the strategy asks nobody."""
        rule = self._wrapped
        asked = rule.strategy.configure_evaluate(server_round, arrays, config, rule.cohort)
        instructions = Instructions(asked, arrays, rule.config_key)
        if not len(instructions):
            return []
        messages = super().configure_evaluate(server_round, arrays, ConfigRecord(), grid)
        return _completed(messages, instructions, config)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Let the strategy aggregate the metrics of one version's federated evaluation.

        An exception costs this evaluation, not the run.
        """
        if self.options.evaluate_metrics_aggr_fn is not None:
            return super().aggregate_evaluate(server_round, replies)
        try:
            return self._wrapped.strategy.aggregate_evaluate(
                server_round, with_common_metrics(list(replies))
            )
        except Exception:
            name = type(self._wrapped.strategy).__name__
            logger.exception("%s.aggregate_evaluate raised; this evaluation is lost", name)
            return None

    def summary(self) -> None:
        """Log the configuration, the strategy's too."""
        super().summary()
        self._wrapped.strategy.summary()


def _completed(
    messages: Iterable[Message], instructions: Instructions, config: ConfigRecord
) -> list[Message]:
    """Put what a strategy tells its nodes into the messages of jobs."""
    completed = list(messages)
    for message in completed:
        instructions.complete(message, config)
    return completed


def asynchronous(
    strategy: Strategy,
    *,
    buffer_size: BufferSize = "cohort",
    staleness: Staleness = polynomial,
    rebase: bool | None = None,
    **options: Any,
) -> AsyncStrategy:
    """Return an asynchronous strategy that lets `strategy` aggregate every `buffer_size` replies.

    Each reply is rebased onto the current model first; see `fedagent.strategies.flower_rule`. The
    strategy's four hooks are called, what it has besides is reachable on what is returned, and an
    exception in its aggregation costs a version and not the run (`Statistics.lost`).

    Parameters
    ----------
    strategy : an instance of any class derived from ``flwr.serverapp.strategy.Strategy``.
    buffer_size : K >= 1, replies per version; "cohort" for as many as a round has; None leaves
        publishing to the clock.
    staleness : s(tau), the weight of a reply that is tau versions late; 1 for a fresh one.
    rebase : whether replies are arrays of numbers that can be put on top of the current model.
        False for a model that only the strategy understands, such as bytes of trees: it gets the
        replies as they came, and what it returns is the model. None for True, but for Flower's
        strategies for XGBoost.
    options : the fields of `AsyncOptions`. Keys, fractions and aggregation of metrics are the
        strategy's own unless given here.

    Of Flower's robust strategies and of those for differential privacy no version holds more than
    one reply of a node, its newest: they count on that. The options' ``Robust(per_node=...)`` says
    otherwise, or the same for other strategies.

    Raises
    ------
    ConfigurationError
        If `strategy` is nothing that can be wrapped, or an option cannot work.

    >>> asynchronous(FedAdam(eta=1e-2), buffer_size=10)  # doctest: +SKIP
    """
    _require_wrappable(strategy)
    if rebase is None:
        rebase = not any(isinstance(s, FedXgbBagging | FedXgbCyclic) for s in layers_of(strategy))
    robust: Robust = options.get("robust") or Robust()
    per_node = robust.kept_per_node
    if robust.per_node is None and _counts_on_one_update_per_node(strategy):
        per_node = "newest"
    rule = FlowerRule(strategy, buffer_size, staleness, rebase, per_node)
    settings = {name: setting_of(strategy, name, None) for name in _SHARED_OPTIONS}
    inherited = {name: value for name, value in settings.items() if value is not None}
    inherited["train_metrics_aggr_fn"] = rule.round_metrics
    return _Asynchronous(rule, **{**inherited, **options})


def _counts_on_one_update_per_node(strategy: Strategy) -> bool:
    """Return whether what a strategy promises holds only if no node is in a buffer twice."""
    return any(isinstance(layer, _ONE_PER_NODE) for layer in layers_of(strategy))


def _require_wrappable(strategy: object) -> None:
    """Refuse what is no strategy of Flower's Message API; warn of a ``start`` that will not run."""
    kind = type(strategy)
    if isinstance(strategy, type):
        name = strategy.__name__
        _insist(False, f"{name} is a class: pass an instance, asynchronous({name}(...)).")
    _insist(
        not isinstance(strategy, AsyncStrategy),
        f"{kind.__name__} is asynchronous already: call its start() as it is.",
    )
    _insist(
        not isinstance(strategy, Synchronous),
        "Synchronous runs Flower's own rounds: pass the strategy that is inside it.",
    )
    _insist(
        isinstance(strategy, Strategy)
        or not any(base.__module__.startswith("flwr.server.") for base in kind.__mro__),
        f"{kind.__name__} is a strategy of Flower's legacy API (flwr.server), which knows no "
        "messages: derive it from its namesake in flwr.serverapp.strategy.",
    )
    _insist(
        isinstance(strategy, Strategy),
        f"{kind.__name__} is no strategy: pass an instance of a class derived from "
        "flwr.serverapp.strategy.Strategy, such as FedAvg().",
    )
    if kind.start is not Strategy.start:  # type: ignore[attr-defined]
        logger.warning(
            "%s.start() is not called, because asynchronous(...) brings a loop of its own: do what "
            "it does for every round in evaluate_fn or in aggregate_train, and the rest around "
            "the call of start().",
            kind.__name__,
        )


def _insist(condition: bool, message: str) -> None:
    require(condition, f"asynchronous: {message}")
