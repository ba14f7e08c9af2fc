"""A rule that lets a Flower strategy decide what a buffer of updates does to the model.

    y'_i = x + s(tau_i) Delta_i        each reply is rebased onto the current model x,
    x <- strategy.aggregate_train(y'_1 .. y'_K)   and K of them are what the strategy sees.

With every tau = 0 this is the wrapped strategy itself, unchanged: FedAdam, Krum, FedTrimmedAvg,
a differentially private wrapper, or the user's own.

An aggregation that raises costs its version: the K updates count as lost, model and strategy are as
they were before it, and the next buffer begins. After ten in a row the exception ends the run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent._flower import aggregate_metricrecords
from fedagent.model import FlatModel, FrozenVector, blocks
from fedagent.rules import Rule, too_stale
from fedagent.rules.buffered import BufferSize, validated_size
from fedagent.rules.one_per_node import PerNode
from fedagent.rules.opaque import OpaqueModel
from fedagent.rules.staleness import Staleness, polynomial, validated
from fedagent.strategies.cohort import Cohort, Instructions
from fedagent.strategies.flower_reply import FlowerReply, read_model, with_common_metrics
from fedagent.strategies.layers import layers_of, remembered, restored_on_error, setting_of
from fedagent.strategies.reply_buffer import ReplyBuffer
from fedagent.update import Rejection, Update
from fedagent.wire.records import from_record, to_record


class FlowerRule(Rule):
    """Lets a Flower strategy aggregate buffers of rebased replies.

    Parameters
    ----------
    strategy : any Flower strategy. Its `configure_train` and `aggregate_train` are called in that
        order, as in a round, once per version; by the clock, once per buffer.
    buffer_size : K >= 1, replies per version; "cohort" for as many as a round has; None leaves
        publishing to the clock.
    staleness : s(tau), 1 for a fresh update.
    rebase : whether replies are updates of arrays of numbers. If not, the model is a record that
        only the strategy understands, such as the bytes of XGBoost's trees: it gets the replies as
        they came, a late one too unless s(tau) is 0, and what it returns is the new model.

    per_node : see `ReplyBuffer`; a strategy that counts on one update per node needs one.

    What the strategy calls a round is one of its aggregations, a version: Adam counts its steps by
    it. With a cohort's K that is everybody's round.

    Its buffer holds K updates, since a strategy may want all of them at once. Not in `state_dict`
    are what the strategy itself remembers, because Flower's strategies cannot be asked for it, and
    what a waiting reply holds besides arrays and metrics.

    Attributes
    ----------
    cohort : the connected nodes as they were when the strategy's round began.
    """

    def __init__(
        self,
        strategy: Strategy,
        buffer_size: BufferSize = 10,
        staleness: Staleness = polynomial,
        rebase: bool = True,
        per_node: PerNode | None = None,
    ) -> None:
        self._asked_size = validated_size("asynchronous", buffer_size)
        self.strategy = strategy
        self.buffer_size = None if buffer_size == "cohort" else buffer_size
        self.staleness = validated(staleness)
        self._rebase, self._per_node = rebase, per_node
        self._forget()

    def _forget(self) -> None:
        """Begin anew."""
        self._buffer = ReplyBuffer(self._per_node)
        self._message: Message | None = None
        self._metrics: MetricRecord | None = None
        self._config = ConfigRecord()
        self.cohort = self._cohort_of(())
        self._configured_version = -1
        self._reference = ArrayRecord()  # the model that the strategy starts from
        self._instructions = Instructions([], self._reference, self.config_key)

    @property
    def arrays_key(self) -> str:
        """The name of the model in the strategy's messages."""
        return str(setting_of(self.strategy, "arrayrecord_key", "arrays"))

    @property
    def config_key(self) -> str:
        """The name of the settings in the strategy's messages."""
        return str(setting_of(self.strategy, "configrecord_key", "config"))

    @property
    def _weighted_by_key(self) -> str:
        return str(setting_of(self.strategy, "weighted_by_key", "num-examples"))

    @property
    def has_buffer(self) -> bool:
        """Yes."""
        return True

    @property
    def is_one_per_node(self) -> bool:
        """Whether the strategy gets at most one reply of a node at a time."""
        return self._per_node is not None

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
        self._metrics = None
        if self._asked_size == "cohort":
            self.buffer_size = num_updates

    @property
    def is_opaque(self) -> bool:
        """Whether only the strategy understands the model."""
        return not self._rebase

    @property
    def pending(self) -> int:
        """Replies in the buffer."""
        return len(self._buffer)

    @property
    def lost(self) -> Mapping[str, int]:
        """Updates of aggregations that raised, or that the strategy made nothing of."""
        return self._buffer.lost

    # --- a round begins -----------------------------------------------------------------------

    def _cohort_of(self, node_ids: Iterable[int]) -> Cohort:
        """Return the nodes as the strategy sees them: enough for what it samples."""
        bounds = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
        least = (setting_of(self.strategy, bound, 1) for bound in bounds)
        return Cohort(node_ids, max(self.buffer_size or 1, *least))

    def configure(
        self,
        version: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Instructions:
        """Let the strategy begin a round, once per version; return what it tells the nodes.

        FedAdam takes its reference from here; what the strategy changes in `config`, such as
        FedProx's mu or a learning rate that decays, stays there.
        """
        if version != self._configured_version:
            self._config.update(config)
            self.cohort = self._cohort_of(grid.get_node_ids())
            self._begin_round(version, arrays)
        config.update(self._config)
        return self._instructions

    def _begin_round(self, version: int, arrays: ArrayRecord) -> None:
        self._configured_version, self._reference = version, arrays
        messages = self.strategy.configure_train(version + 1, arrays, self._config, self.cohort)
        self._instructions = Instructions(messages, arrays, self.config_key)

    # --- replies come -------------------------------------------------------------------------

    @contextmanager
    def reading(self, message: Message) -> Iterator[None]:
        """Show, while its update is received, the reply as it came."""
        self._message = message
        try:
            yield
        finally:
            self._message = None

    def discount(self, staleness: int) -> float:
        """Return s(tau)."""
        return self.staleness(staleness)

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse what cannot be weighed and should weigh nothing."""
        is_worthless = self.is_opaque and self.staleness(update.staleness) == 0
        return too_stale(update) if is_worthless else None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Weigh the update; the K-th lets the strategy aggregate."""
        weight = self.staleness(update.staleness)
        base_version = model.version - update.staleness
        came = self._message, self.arrays_key, base_version, self._weighted_by_key
        reply = FlowerReply.of(update, weight, *came, self.is_opaque)
        self._buffer.add(reply)
        if self.buffer_size is None or len(self._buffer) < self.buffer_size:
            return False
        is_published = self.flush(model)
        self._buffer.lose(
            "nothing-aggregated"
        )  # as in Flower, a round that came to nothing is lost
        return is_published

    def flush(self, model: FlatModel) -> bool:
        """Let the strategy aggregate what is there; what it makes nothing of stays and waits."""
        if not self._buffer:
            return False
        if not self._starts_from(model):
            self._begin_round(model.version, to_record(model.arrays()))
        replies = with_common_metrics([reply.message(model) for reply in self._buffer])
        try:
            with restored_on_error(self.strategy):
                record, self._metrics = self.strategy.aggregate_train(model.version + 1, replies)
                new = None if record is None else read_model(record, model.spec)
        except Exception as error:
            self._fail(error)
            return False
        self._buffer.failures_in_a_row = 0
        if new is None:
            return False
        if isinstance(model, OpaqueModel):
            model.contents = new
        else:
            for reply in self._buffer:
                model.carry(reply.carried, model.version - reply.base_version)
            for x, aggregated in blocks(model.vector, FrozenVector(model.spec, new)):
                x.copy_(aggregated)
        self._buffer.clear()
        return True

    def _starts_from(self, model: FlatModel) -> bool:
        """Return whether the strategy was configured with the model as it is now.

        Not after a buffer that the clock has not published yet, nor after an edge's merge.
        """
        if self._configured_version != model.version:
            return False
        reference, arrays = from_record(self._reference), model.arrays()
        return all(np.array_equal(reference[n], arrays[n]) for n in model.spec.offsets)

    def round_metrics(self, records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
        """Return the metrics that the strategy made of the round's newest version's replies."""
        made = self._metrics
        return aggregate_metricrecords(records, weighted_by_key) if made is None else made

    # --- an aggregation comes to nothing ------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        """Give up a version; the strategy begins anew, as it does not know how far it came."""
        self._buffer.give_up(type(self.strategy).__name__, error)
        self._configured_version = -1

    def memory(self) -> Mapping[str, Any]:
        """Return the buffer, and the attributes of the strategy and of those that it wraps."""
        return {**self.state_dict(), "strategies": list(map(vars, layers_of(self.strategy)))}

    def remember(self) -> Callable[[], None]:
        """Remember the buffer, and which values the strategy's attributes have."""
        state, restore_strategy = self.state_dict(), remembered(self.strategy)

        def restore() -> None:
            self.load_state_dict(state)
            restore_strategy()

        return restore

    def take_withdrawn(self) -> Mapping[int, float]:
        """Return the weight of replies that others of their node have replaced."""
        return self._buffer.take_withdrawn()

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer, and how many updates are lost."""
        return self._buffer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the buffer; the strategy is configured anew."""
        self._forget()
        self._buffer.load_state_dict(state)
