"""A rule that lets a Flower strategy decide what a buffer of updates does to the model.

    y'_i = x + s(tau_i) Delta_i        each reply is rebased onto the current model x,
    x <- strategy.aggregate_train(y'_1 .. y'_K)   and K of them are what the strategy sees.

With every tau = 0 this is the wrapped strategy itself, unchanged: FedAdam, Krum, FedTrimmedAvg,
a differentially private wrapper, or the user's own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent._flower import Run, empty_run, reply_from
from fedagent.model import FlatModel, FrozenVector, blocks
from fedagent.rules import Rule
from fedagent.rules.buffered import BufferSize, validated_size
from fedagent.staleness import Staleness, polynomial, validated
from fedagent.update import Update
from fedagent.wire.records import common_metrics, from_record, to_record


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


def setting_of(strategy: Strategy, name: str, default: Any) -> Any:
    """Return a setting of a strategy, or of the one it wraps as Flower's DP wrappers do."""
    while not hasattr(strategy, name):
        inner = getattr(strategy, "strategy", None)
        if not isinstance(inner, Strategy):
            return default
        strategy = inner
    return getattr(strategy, name)


def _layers(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy and those inside it, as Flower's DP wrappers have one."""
    inner: Any = strategy
    while isinstance(inner, Strategy):
        yield inner
        inner = getattr(inner, "strategy", None)


class FlowerRule(Rule):
    """Lets a Flower strategy aggregate buffers of rebased replies.

    Parameters
    ----------
    strategy : any Flower strategy. Its `configure_train` and `aggregate_train` are called in that
        order, as in a round, once per version; by the clock, once per buffer.
    buffer_size : K >= 1, replies per version; "cohort" for as many as a round has; None leaves
        publishing to the clock.
    staleness : s(tau), 1 for a fresh update.

    What the strategy calls a round is one of its aggregations, a version: Adam counts its steps by
    it. With a cohort's K that is everybody's round.

    Its buffer holds K updates, since a strategy may want all of them at once; what the strategy
    itself remembers is not in `state_dict`, because Flower's strategies cannot be asked for it.
    """

    def __init__(
        self, strategy: Strategy, buffer_size: BufferSize = 10, staleness: Staleness = polynomial
    ) -> None:
        self._asked_size = validated_size("asynchronous", buffer_size)
        self.strategy = strategy
        self.buffer_size = None if buffer_size == "cohort" else buffer_size
        self.staleness = validated(staleness)
        self._arrays_key = setting_of(strategy, "arrayrecord_key", "arrays")
        self._config_key = setting_of(strategy, "configrecord_key", "config")
        self._num_sampled = max(
            setting_of(strategy, "min_available_nodes", 1),
            setting_of(strategy, "min_train_nodes", 1),
        )
        self._config = ConfigRecord()
        self._configured_version = -1
        self._reference: ArrayRecord | None = None  # the model that the strategy starts from
        self._buffer: list[tuple[int, torch.Tensor, Mapping[str, Any]]] = []

    @property
    def needs_clock(self) -> bool:
        """Whether the buffer has no size."""
        return self._asked_size is None

    @property
    def updates_per_version(self) -> int | None:
        """K."""
        return self.buffer_size

    def begin_round(self, num_updates: int) -> None:
        """Take the round's number of updates as K, if that is what was asked for."""
        if self._asked_size == "cohort":
            self.buffer_size = num_updates

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
            self._config.update(config)
            self._begin_round(version, arrays)
        config.update(self._config)

    def _begin_round(self, version: int, arrays: ArrayRecord) -> None:
        self._configured_version, self._reference = version, arrays
        cohort = _Cohort(max(self._num_sampled, self.buffer_size or 1))
        messages = self.strategy.configure_train(version + 1, arrays, self._config, cohort)
        for message in messages:
            self._config.update(message.content.config_records[self._config_key])
            break  # all messages of a round carry the same configuration

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Weigh the update; the K-th lets the strategy aggregate."""
        weight = self.staleness(update.staleness)
        self._buffer.append((update.node_id, update.delta.mul_(weight), dict(update.metrics)))
        model.carry(update.carried, update.staleness)
        if self.buffer_size is None or len(self._buffer) < self.buffer_size:
            return False
        is_published = self.flush(model)
        self._buffer.clear()  # as in Flower, a round that came to nothing is lost
        return is_published

    def flush(self, model: FlatModel) -> bool:
        """Let the strategy aggregate what is there; what it makes nothing of stays and waits."""
        if not self._buffer:
            return False
        if not self._starts_from(model):
            self._begin_round(model.version, to_record(model.arrays()))
        replies = list(self._replies(model))
        aggregated, _ = self.strategy.aggregate_train(model.version + 1, replies)
        if aggregated is None:
            return False
        for x, new in blocks(model.vector, FrozenVector(model.spec, from_record(aggregated))):
            x.copy_(new)
        self._buffer.clear()
        return True

    def _starts_from(self, model: FlatModel) -> bool:
        """Return whether the strategy was configured with the model as it is now.

        Not after a buffer that the clock has not published yet, nor after an edge's merge.
        """
        if self._reference is None or self._configured_version != model.version:
            return False
        reference, arrays = from_record(self._reference), model.arrays()
        return all(
            np.array_equal(reference[s.name], arrays[s.name])
            for s in model.spec.arrays
            if s.is_averaged
        )

    def _replies(self, model: FlatModel) -> Iterator[Message]:
        """Yield whole models: the updates on top of the current one."""
        metrics = common_metrics([MetricRecord(dict(m)) for _, _, m in self._buffer])
        for (node_id, delta, _), shared in zip(self._buffer, metrics, strict=True):
            arrays = to_record(model.spec.unflatten(delta + model.vector, model.carried))
            yield reply_from(node_id, RecordDict({self._arrays_key: arrays, **shared}))

    def memory(self) -> Mapping[str, Any]:
        """Return the buffer, and the attributes of the strategy and of those that it wraps."""
        return {**self.state_dict(), "strategies": list(map(vars, _layers(self.strategy)))}

    def remember(self) -> Callable[[], None]:
        """Remember the buffer, and which values the strategy's attributes have."""
        state = self.state_dict()
        attributes = [(layer, dict(vars(layer))) for layer in _layers(self.strategy)]

        def restore() -> None:
            self.load_state_dict(state)
            for layer, values in attributes:
                vars(layer).clear()
                vars(layer).update(values)

        return restore

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer."""
        return {
            "buffer": [
                {"node_id": node_id, "delta": delta.clone(), "metrics": dict(metrics)}
                for node_id, delta, metrics in self._buffer
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the buffer; the strategy is configured anew."""
        self._buffer = [
            (int(reply["node_id"]), reply["delta"].clone(), dict(reply["metrics"]))
            for reply in state["buffer"]
        ]
        self._config, self._configured_version = ConfigRecord(), -1
        self._reference = None
