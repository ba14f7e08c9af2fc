"""Any Flower strategy, made asynchronous.

    y'_i = x + s(tau_i) Delta_i        each reply is rebased onto the current model x,
    x <- strategy.aggregate_train(y'_1 .. y'_K)   and K of them are what the strategy sees.

With every tau = 0 this is the wrapped strategy itself, unchanged: FedAdam, Krum, FedTrimmedAvg,
a differentially private wrapper, or the user's own.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent._flower import Run, empty_run, reply_from
from fedagent.errors import require
from fedagent.model import FlatModel, FrozenVector, blocks
from fedagent.rules import Rule
from fedagent.staleness import Staleness, polynomial, validated
from fedagent.strategies.async_strategy import AsyncStrategy
from fedagent.update import Update
from fedagent.wire.records import common_metrics, from_record, to_record

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


class _Cohort(Grid):
    """As many nodes as a strategy wants to sample from. Nothing is ever sent to them."""

    def __init__(self, size: int) -> None:
        self._node_ids = range(1, size + 1)

    def set_run(self, run: Run) -> None:
        """Ignore the run."""

    @property
    def run(self) -> Run:
        """An empty run."""
        return empty_run(0)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the cohort."""
        return self._node_ids

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Raise: a cohort sends nothing."""
        raise RuntimeError("configure_train must not talk to nodes: fedagent sends its messages.")

    push_messages = pull_messages = send_and_receive = create_message  # type: ignore[assignment]


def _setting(strategy: Strategy, name: str, default: Any) -> Any:
    """Return a setting of a strategy, or of the one it wraps as Flower's DP wrappers do."""
    while not hasattr(strategy, name):
        inner = getattr(strategy, "strategy", None)
        if not isinstance(inner, Strategy):
            return default
        strategy = inner
    return getattr(strategy, name)


class FlowerRule(Rule):
    """Lets a Flower strategy aggregate buffers of rebased replies.

    Parameters
    ----------
    strategy : any Flower strategy; its `configure_train` and `aggregate_train` are called once per
        version, in that order, as in a round.
    buffer_size : K >= 1, replies per version.
    staleness : s(tau), 1 for a fresh update.

    Its buffer holds K models, since a strategy may want all of them at once; what the strategy
    itself remembers is not in `state_dict`, because Flower's strategies cannot be asked for it.
    """

    def __init__(
        self, strategy: Strategy, buffer_size: int = 10, staleness: Staleness = polynomial
    ) -> None:
        require(buffer_size >= 1, f"asynchronous: buffer_size={buffer_size} must be at least 1.")
        self.strategy = strategy
        self.buffer_size = buffer_size
        self.staleness = validated(staleness)
        self._keys = {
            key: _setting(strategy, key, default)
            for key, default in (("arrayrecord_key", "arrays"), ("configrecord_key", "config"))
        }
        smallest = max(
            buffer_size,
            _setting(strategy, "min_available_nodes", 1),
            _setting(strategy, "min_train_nodes", 1),
        )
        self._cohort = _Cohort(smallest)
        self._config = ConfigRecord()
        self._configured_version = -1
        self._buffer: list[tuple[int, dict[str, Any], Mapping[str, Any]]] = []

    @property
    def pending(self) -> int:
        """Replies in the buffer."""
        return len(self._buffer)

    def configure(self, version: int, arrays: ArrayRecord, config: ConfigRecord) -> None:
        """Tell the strategy, once per version, which model the next round starts from.

        FedAdam takes its reference from here; what the strategy wants its clients to know, such as
        FedProx's mu or a learning rate that decays, goes into `config`.
        """
        if version != self._configured_version:
            self._configured_version = version
            self._config.update(config)
            messages = self.strategy.configure_train(
                version + 1, arrays, self._config, self._cohort
            )
            for message in messages:
                self._config.update(message.content.config_records[self._keys["configrecord_key"]])
                break  # all messages of a round carry the same configuration
        config.update(self._config)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Rebase the reply; the K-th lets the strategy aggregate."""
        if model.version != self._configured_version:
            self.configure(model.version, to_record(model.arrays()), ConfigRecord())
        model.carry(update.carried)
        weight = self.staleness(update.staleness)
        for rebased, x in blocks(update.delta, model.vector):
            rebased.mul_(weight).add_(x)
        self._buffer.append(
            (update.node_id, model.spec.unflatten(update.delta, model.carried), update.metrics)
        )
        if len(self._buffer) < self.buffer_size:
            return False
        buffer, self._buffer = self._buffer, []
        metrics = common_metrics([MetricRecord(dict(m)) for _, _, m in buffer])
        replies = [
            reply_from(
                node_id, RecordDict({self._keys["arrayrecord_key"]: to_record(arrays), **shared})
            )
            for (node_id, arrays, _), shared in zip(buffer, metrics, strict=True)
        ]
        aggregated, _ = self.strategy.aggregate_train(model.version + 1, replies)
        if aggregated is None:
            return False
        for x, new in blocks(model.vector, FrozenVector(model.spec, from_record(aggregated))):
            x.copy_(new)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer."""
        return {"buffer": list(self._buffer)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the buffer; the strategy is configured anew."""
        self._buffer = list(state["buffer"])
        self._config, self._configured_version = ConfigRecord(), -1


class _Asynchronous(AsyncStrategy):
    rule: FlowerRule

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.rule.configure(server_round - 1, arrays, config)
        return super().configure_train(server_round, arrays, config, grid)

    def summary(self) -> None:
        super().summary()
        self.rule.strategy.summary()


def asynchronous(
    strategy: Strategy, buffer_size: int = 10, staleness: Staleness = polynomial, **options: Any
) -> AsyncStrategy:
    """Return an asynchronous strategy that lets `strategy` aggregate every `buffer_size` replies.

    Keys, fractions and metric aggregation are the wrapped strategy's unless given in `options`,
    which are those of `AsyncOptions`.

    >>> asynchronous(FedAdam(eta=1e-2), buffer_size=10)  # doctest: +SKIP
    """
    settings = {name: _setting(strategy, name, None) for name in _SHARED_OPTIONS}
    inherited = {name: value for name, value in settings.items() if value is not None}
    return _Asynchronous(FlowerRule(strategy, buffer_size, staleness), **{**inherited, **options})
