"""The node in the middle: one event loop that never waits for anybody in particular.

    hand work to idle nodes -> take the replies that have come -> let the rule move the model
      ^                                                                       |
      +----------------------- publish a new version <------------------------+

One thread owns the model. Nothing here knows whether time is real or simulated.
"""

import logging
import math
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent import keys
from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.ending import Ending
from fedagent.proxy.evaluations import Evaluations
from fedagent.proxy.federated_evaluation import FederatedEvaluation
from fedagent.proxy.inbox import Inbox
from fedagent.proxy.ledger import Version
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.run_end import RunResult, ShouldStop
from fedagent.proxy.run_request import RunRequest
from fedagent.proxy.server_evaluation import ServerEvaluation
from fedagent.proxy.termination import termination
from fedagent.proxy.versions import Versions
from fedagent.rules import Rule
from fedagent.scheduling import Assignment
from fedagent.stopping import MaxVersions, RunEnd, Stopping, first_reason, next_due_s
from fedagent.update import Kind, Outcome, Rejection
from fedagent.wire.records import common_metrics

logger = logging.getLogger("flwr.fedagent")

_DROPPED = Rejection(
    Outcome.REJECTED,
    "dropped-by-strategy",
    "an override of aggregate_train did not pass it on",
    blames_node=False,
)


class Proxy:
    """One run: the loop between a rule and a grid.

    Work is handed out and replies are taken in through the four hooks of `strategy`
    (``configure_train`` and so on), so that a subclass that overrides them is heard.
    """

    def __init__(
        self,
        strategy: Strategy,
        rule: Rule,
        options: AsyncOptions,
        grid: Grid,
        arrays: ArrayRecord,
        request: RunRequest,
    ) -> None:
        self._strategy, self._rule, self._options = strategy, rule, options
        self._grid, self._request = grid, request
        self._dispatcher = Dispatcher(grid, options, request.timeout_s)
        self._ledger, self.statistics = self._dispatcher.ledger, self._dispatcher.statistics
        self._versions = Versions(arrays, rule, self._ledger)
        self._model = self._versions.model
        self._inbox = Inbox(options, self._dispatcher, self._versions, rule)
        self._metrics: list[MetricRecord] = []
        self._train_config = self._train_config_before = request.train_config
        self._configured_version = -1
        self._is_over = False
        self.result = RunResult()
        self._stopping: list[Stopping] = [MaxVersions(request.num_rounds), *options.stopping]
        if request.should_stop is not None:
            self._stopping.append(ShouldStop(request.should_stop, self.result))
        self._limit_s = next_due_s(self._stopping)
        self._clients = FederatedEvaluation(strategy, options, grid, self._dispatcher)
        self._evaluations = Evaluations(
            ServerEvaluation(request.evaluate_fn, in_background=not self.statistics.is_virtual),
            self._clients,
            rule,
            self.result,
            self.statistics,
            options.callbacks,
        )

    def run(self) -> RunResult:
        """Train until a stopping condition holds; return Flower's result."""
        self._versions.publish()
        self._rule.on_start(self._model)
        try:
            for callback in self._options.callbacks:
                callback.on_start(self.statistics)
            end = self._dispatcher.wait_for_nodes(self._options.min_available_nodes)
            self._evaluate()
            end = end or self._completed()
            with termination(heed=not self.statistics.is_virtual) as must_end:
                while end is None:
                    self._hand_out_work()
                    self._ask_clients_to_evaluate()
                    end = self._take_replies() or self._dispatcher.stalled()
                    if must_end():
                        end = end or self._drain()
                self._end(end)
        except BaseException as error:  # Ctrl-C too
            self._tell_end(RunEnd.by(error))
            raise
        finally:
            self._evaluations.close()
            self._dispatcher.stop_listening()
        return self.result

    def _completed(self) -> RunEnd | None:
        """Return the end that a stopping condition makes, if one holds."""
        reason = first_reason(self._stopping, self.statistics)
        return None if reason is None else RunEnd("completed", reason)

    # --- the loop's two halves ----------------------------------------------------------------

    def _hand_out_work(self) -> None:
        """Let the strategy configure jobs for free slots.

        Flower calls configure_train once per round with one configuration that lives on, and users
        decay learning rates in it. Here it is called several times per version: every call starts
        from what the previous version left.
        """
        if not self._dispatcher.slots.has_room:
            return
        if self._configured_version != self.statistics.version:
            self._configured_version = self.statistics.version
            self._train_config_before = self._train_config
        self._train_config = self._train_config_before.copy()
        messages = self._strategy.configure_train(
            self.statistics.version + 1,
            self._versions.current.payload,
            self._train_config,
            self._grid,
        )
        self._dispatcher.send(Kind.TRAIN, messages)

    def _take_replies(self) -> RunEnd | None:
        """Take in what has come, or wait a little. Return the end, if a condition holds."""
        due_s = math.inf if self._is_over else self._rule.next_due_s()
        replies = self._dispatcher.pull(min(self._limit_s, due_s))
        self._evaluations.collect()
        self._advance()
        end = self._completed()
        for reply in replies:
            self._take(reply, is_over=end is not None)
            end = end or self._completed()
        for dispatch in self._dispatcher.expire_overdue():
            if dispatch.kind is Kind.EVALUATE:
                self._evaluations.settle(dispatch)
        return end

    def _take(self, reply: Message, is_over: bool) -> None:
        dispatch = self._dispatcher.match(reply)
        if dispatch is None:
            return
        if dispatch.kind is Kind.EVALUATE:
            self._evaluations.take(dispatch, reply)
            return
        if is_over:  # it came after the end and expires with the run
            return
        self._strategy.aggregate_train(self.statistics.version + 1, [reply])
        if self._ledger.get(dispatch.message_id) is not None:
            self._dispatcher.close(dispatch, Ending.by(_DROPPED))

    def _drain(self) -> RunEnd:
        """Take in what is in flight, if it comes soon; return the end."""
        drain_s = self._options.drain_s
        logger.info("SIGTERM: no new work; %g s for the %d in flight", drain_s, len(self._ledger))
        self._limit_s = min(self._limit_s, self.statistics.now_s + drain_s)
        while len(self._ledger) and self.statistics.now_s < self._limit_s:
            if end := self._take_replies():
                return end
        return RunEnd("stopped", "SIGTERM")

    def _end(self, end: RunEnd) -> None:
        (logger.error if end.has_failed else logger.info)("Run ends: %s", end)
        self._is_over = True
        # A limit has done its work, and must not keep the clock from moving; a drain has not.
        self._limit_s = self._limit_s if end.kind == "stopped" else math.inf
        self._dispatcher.end_all(Kind.TRAIN)
        self._evaluate()
        self._evaluations.collect(wait=True)
        trained_s = self.statistics.now_s
        self._ask_clients_to_evaluate(is_over=True)
        while self._evaluations.are_awaited and self.statistics.now_s < self._limit_s:
            self._take_replies()
        for dispatch in self._dispatcher.end_all(Kind.EVALUATE):
            self._evaluations.settle(dispatch)
        self.statistics.now_s = trained_s  # how long training took, not its examination
        self._tell_end(end)

    def _tell_end(self, end: RunEnd) -> None:
        self.result.end, self.result.arrays = end, self._versions.current.payload
        for callback in self._options.callbacks:
            callback.on_end(self.statistics, end, lambda: self.result.arrays)

    # --- what the strategy's hooks call -------------------------------------------------------

    def train_messages(self, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        """Return one message for every free slot and idle node that the scheduler matches."""
        messages = []
        for job in self._dispatcher.slots.assignments():
            base = self._own_model(job.node_id)
            told = config.copy()
            told.update(self._rule.job_config(job.node_id))
            if self._options.max_prefetch:
                newest = self._versions.number_for(job.node_id)
                told[keys.UNAPPLIED] = self._dispatcher.jobs.unapplied(job.node_id, newest)
            message = self._dispatcher.outbox.message(Kind.TRAIN, arrays, told, job, base)
            messages.append(message)
        return messages

    def evaluate_messages(self, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        """Return messages for a sample of the nodes that training leaves idle."""
        return [
            self._dispatcher.outbox.message(
                Kind.EVALUATE, arrays, config, Assignment(node_id), self._own_model(node_id)
            )
            for node_id in self._clients.chosen
        ]

    def _own_model(self, node_id: int) -> Version | None:
        self._rule.register_node(node_id, self._dispatcher.attributes(node_id))
        return self._versions.own(node_id)

    def receive(self, reply: Message) -> tuple[ArrayRecord, MetricRecord] | None:
        """Take in the reply to a train dispatch; return the new version if it completes one."""
        received = self._inbox.read(reply)
        if received is None:
            return None
        dispatch, update, applied = received.dispatch, received.update, received.applied
        del received  # and soon the update: the next version needs its memory
        self._metrics.append(cast(MetricRecord, update.metrics).copy())
        if self._options.max_prefetch:
            number = self._versions.number_for(dispatch.node_id)
            self._dispatcher.jobs.receive(dispatch, number)
        self.statistics.received(update.staleness, update.duration_s)
        is_published = self._rule.receive(self._model, update)
        del update
        self.statistics.buffered = self._rule.pending
        self._dispatcher.close(dispatch, applied)
        newest = self._publish_next() if is_published else None
        return self._advance() or newest

    def _advance(self) -> tuple[ArrayRecord, MetricRecord] | None:
        """Let the rule do what is due by now; return the newest version, if that made one."""
        newest = None
        while (
            self._rule.next_due_s() <= self.statistics.now_s
            and not self._is_over
            and self._completed() is None
        ):
            is_published = self._rule.advance(self._model, self.statistics.now_s)
            self.statistics.buffered = self._rule.pending
            newest = self._publish_next() if is_published else newest
        self.statistics.edge_bytes_between_regions = self._rule.bytes_between_regions
        self.statistics.lost = self._rule.lost
        return newest

    # --- versions -----------------------------------------------------------------------------

    def _publish_next(self) -> tuple[ArrayRecord, MetricRecord]:
        self._versions.publish_next()
        version = self.statistics.version = self._model.version
        metrics = MetricRecord()
        if self._metrics:  # a rule may publish without an update in between
            metrics = self._options.aggregate(common_metrics(self._metrics), is_train=True)
        self._metrics.clear()
        self.result.arrays = self._versions.current.payload
        self.result.train_metrics_clientapp[version] = metrics
        logger.info("Version %d: %s", version, metrics)
        for callback in self._options.callbacks:
            callback.on_version(self.statistics)
        if version % self._options.evaluate_every == 0:
            self._evaluate()
        return self._versions.current.payload, metrics

    def _evaluate(self) -> None:
        self._evaluations.evaluate(self._versions.current.payload)

    def _ask_clients_to_evaluate(self, is_over: bool = False) -> None:
        self._evaluations.ask_clients(
            self._versions.current.payload, self._request.evaluate_config, is_over
        )
