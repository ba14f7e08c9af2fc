"""The node in the middle: one event loop that never waits for anybody in particular.

    hand work to idle nodes -> take the replies that have come -> let the rule move the model
      ^                                                                       |
      +----------------------- publish a new version <------------------------+

One thread owns the model. Nothing here knows whether time is real or simulated.
"""

import logging
import math
from dataclasses import dataclass
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedagent import keys
from fedagent.model import FlatModel, FrozenVector, ModelSpec, NDArray
from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.federated_evaluation import FederatedEvaluation
from fedagent.proxy.ledger import Version
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.server_evaluation import EvaluateFn, ServerEvaluation, moment_of
from fedagent.proxy.termination import termination
from fedagent.rules import Rule
from fedagent.scheduling import Assignment, Observation
from fedagent.statistics import Evaluation
from fedagent.stopping import MaxSeconds, MaxVersions, Stopping, first_reason
from fedagent.update import Dispatch, Kind, Outcome, Rejection, Update
from fedagent.wire.records import common_metrics, from_record, payload_bytes, to_record, views_of

logger = logging.getLogger("flwr.fedagent")


@dataclass(frozen=True)
class RunRequest:
    """What one call of ``Strategy.start`` asks for, in Flower's words."""

    num_rounds: int
    timeout_s: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: EvaluateFn | None


class Proxy:
    """One run: the model, and the loop between a rule and a grid.

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
        job: RunRequest,
    ) -> None:
        self._strategy, self._rule, self._options = strategy, rule, options
        self._grid, self._job = grid, job
        initial = from_record(arrays)
        self._model = FlatModel(ModelSpec.of(initial), initial)
        self._dispatcher = Dispatcher(grid, options, job.timeout_s)
        self._ledger = self._dispatcher.ledger
        self._admission = options.admission
        self._metrics: list[MetricRecord] = []
        self._train_config = self._train_config_before = job.train_config
        self._configured_version = self._asked_rule_at = -1
        self._is_over = False
        self._federated_evaluation = FederatedEvaluation(strategy, options, grid, self._dispatcher)
        self._stopping: list[Stopping] = [MaxVersions(job.num_rounds), *options.stopping]
        self._limit_s = min(
            (c.seconds for c in self._stopping if isinstance(c, MaxSeconds)), default=math.inf
        )
        self.statistics = self._dispatcher.statistics
        self.result = Result()
        self._server_evaluation = ServerEvaluation(
            job.evaluate_fn, in_background=not self.statistics.is_virtual
        )

    def run(self) -> Result:
        """Train until a stopping condition holds; return Flower's result."""
        self._publish()
        self._rule.on_start(self._model)
        try:
            for callback in self._options.callbacks:
                callback.on_start(self.statistics)
            reason = self._dispatcher.wait_for_nodes(self._options.min_available_nodes)
            self._evaluate(is_due=True)
            reason = reason or first_reason(self._stopping, self.statistics)
            with termination(heed=not self.statistics.is_virtual) as must_end:
                while reason is None:
                    self._hand_out_work()
                    self._ask_clients_to_evaluate()
                    reason = self._take_replies() or self._dispatcher.stalled()
                    if must_end():
                        reason = reason or self._drain()
                self._end(reason)
        except BaseException as error:  # Ctrl-C too
            self._tell_end(f"failed: {error!r}")
            raise
        finally:
            self._server_evaluation.close()
            self._dispatcher.stop_listening()
        return self.result

    # --- the loop's two halves ----------------------------------------------------------------

    def _hand_out_work(self) -> None:
        """Let the strategy configure jobs for free slots.

        Flower calls configure_train once per round with one configuration that lives on, and users
        decay learning rates in it. Here it is called several times per version: every call starts
        from what the previous version left.
        """
        if not self._dispatcher.has_room:
            return
        if self._configured_version != self.statistics.version:
            self._configured_version = self.statistics.version
            self._train_config_before = self._train_config
        self._train_config = self._train_config_before.copy()
        self._dispatcher.send(
            Kind.TRAIN,
            self._strategy.configure_train(
                self.statistics.version + 1,
                self._current.payload,
                self._train_config,
                self._grid,
            ),
        )

    def _take_replies(self) -> str | None:
        """Take in what has come, or wait a little. Return the reason to stop, if there is one."""
        due_s = math.inf if self._is_over else self._rule.next_due_s()
        replies = self._dispatcher.pull(min(self._limit_s, due_s))
        self._collect_evaluations()
        self._advance()
        reason = first_reason(self._stopping, self.statistics)
        for reply in replies:
            self._take(reply, is_over=reason is not None)
            reason = reason or first_reason(self._stopping, self.statistics)
        for dispatch in self._dispatcher.expire_overdue():
            if dispatch.kind is Kind.EVALUATE:
                self._record(self._federated_evaluation.settle(dispatch))
        return reason

    def _take(self, reply: Message, is_over: bool) -> None:
        dispatch = self._dispatcher.match(reply)
        if dispatch is None:
            return
        if dispatch.kind is Kind.EVALUATE:
            self._record(self._federated_evaluation.take(dispatch, reply))
            return
        if is_over:  # it came after the end and expires with the run
            return
        self._strategy.aggregate_train(self.statistics.version + 1, [reply])
        if self._ledger.get(dispatch.message_id) is not None:
            self._dispatcher.close(
                dispatch,
                Outcome.REJECTED,
                "dropped-by-strategy",
                "an override of aggregate_train did not pass it on",
            )

    def _drain(self) -> str:
        """Take in what is in flight, if it comes soon; return the reason to stop."""
        drain_s = self._options.drain_s
        logger.info("SIGTERM: no new work; %g s for the %d in flight", drain_s, len(self._ledger))
        self._limit_s = min(self._limit_s, self.statistics.now_s + drain_s)
        while len(self._ledger) and self.statistics.now_s < self._limit_s:
            if reason := self._take_replies():
                return reason
        return "stopped by SIGTERM"

    def _end(self, reason: str) -> None:
        (logger.error if reason.startswith("stalled") else logger.info)("Run ends: %s", reason)
        self._is_over = True
        self._limit_s = math.inf  # it has done its work, and must not keep the clock from moving
        self._dispatcher.end_training()
        self._evaluate(is_due=True)
        self._collect_evaluations(wait=True)
        trained_s = self.statistics.now_s
        self._ask_clients_to_evaluate(is_over=True)
        while len(self._federated_evaluation):
            self._take_replies()
        self.statistics.now_s = trained_s  # how long training took, not its examination
        self._tell_end(reason)

    def _tell_end(self, reason: str) -> None:
        self.result.arrays = self._current.payload
        for callback in self._options.callbacks:
            callback.on_end(self.statistics, reason, lambda: self.result.arrays)

    # --- what the strategy's hooks call -------------------------------------------------------

    def train_messages(self, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        """Return one message for every free slot and idle node that the scheduler matches."""
        messages = []
        for job in self._dispatcher.assignments():
            base = self._own_model(job.node_id)
            told = config.copy()
            told.update(self._rule.job_config(job.node_id))
            if self._options.max_prefetch:
                newest = self._number_for(job.node_id)
                told[keys.UNAPPLIED] = self._dispatcher.unapplied.tokens(job.node_id, newest)
            messages.append(self._dispatcher.message(Kind.TRAIN, arrays, told, job, base))
        return messages

    def evaluate_messages(self, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        """Return messages for a sample of the nodes that training leaves idle."""
        return [
            self._dispatcher.message(
                Kind.EVALUATE, arrays, config, Assignment(node_id), self._own_model(node_id)
            )
            for node_id in self._federated_evaluation.chosen
        ]

    def receive(self, reply: Message) -> tuple[ArrayRecord, MetricRecord] | None:
        """Take in the reply to a train dispatch; return the new version if it completes one."""
        dispatch = self._ledger.get(reply.metadata.reply_to_message_id)
        if dispatch is None:
            return None
        received_bytes = 0 if reply.has_error() else payload_bytes(reply.content)
        update = self._admit(reply, dispatch)
        observation = _observation(update) if isinstance(update, Update) else None
        if isinstance(update, Update) and not self._rule.accepts(update):
            detail = f"staleness {update.staleness}. {self._rule.rejection_advice}".strip()
            update = Rejection(Outcome.REJECTED, self._rule.rejection_reason, detail)
        if isinstance(update, Rejection):
            self._dispatcher.close(
                dispatch,
                update.outcome,
                update.reason,
                update.detail,
                received_bytes,
                observation=observation,
            )
            return None
        self._metrics.append(cast(MetricRecord, update.metrics).copy())
        if self._options.max_prefetch:
            number = self._number_for(dispatch.node_id)
            self._dispatcher.unapplied.received(dispatch.node_id, dispatch.token, number)
        self.statistics.received(update.staleness, update.duration_s)
        is_published = self._rule.receive(self._model, update)
        self.statistics.buffered = self._rule.pending
        self._dispatcher.close(
            dispatch,
            Outcome.APPLIED,
            received_bytes=received_bytes,
            staleness=update.staleness,
            observation=observation,
        )
        del update  # the memory of two models, which the next version needs
        newest = self._publish_next() if is_published else None
        return self._advance() or newest

    def _admit(self, reply: Message, dispatch: Dispatch) -> Update | Rejection:
        """Turn a reply into an update, or refuse it."""
        base = self._ledger.base(dispatch)
        return self._admission.check(
            reply,
            dispatch,
            self._model.spec,
            base.vector,
            self._ledger.staleness(dispatch, self._rule.version_for(dispatch.node_id)),
            self.statistics.now_s,
            base.carried,
            self._dispatcher.begun_s(dispatch),
        )

    def _advance(self) -> tuple[ArrayRecord, MetricRecord] | None:
        """Let the rule do what is due by now; return the newest version, if that made one."""
        newest = None
        while (
            self._rule.next_due_s() <= self.statistics.now_s
            and not self._is_over
            and first_reason(self._stopping, self.statistics) is None
        ):
            is_published = self._rule.advance(self._model, self.statistics.now_s)
            self.statistics.buffered = self._rule.pending
            newest = self._publish_next() if is_published else newest
        self.statistics.edge_bytes_between_regions = self._rule.bytes_between_regions
        return newest

    # --- versions -----------------------------------------------------------------------------

    @property
    def _current(self) -> Version:
        assert self._ledger.current is not None
        return self._ledger.current

    def _own_model(self, node_id: int) -> Version | None:
        """Return the model that the rule keeps for a node, if it keeps one."""
        self._rule.register_node(node_id, self._dispatcher.attributes(node_id))
        vector = self._rule.model_for(node_id)
        if vector is None:
            return None
        number = self._number_for(node_id)
        return self._version(number, self._model.spec.unflatten(vector, self._model.carried))

    def _number_for(self, node_id: int) -> int:
        """Return the number of the newest version that a node could be given."""
        number = self._rule.version_for(node_id)
        return self._model.version if number is None else number

    def _publish(self) -> None:
        self._ledger.publish(self._version(self._model.version, self._model.arrays()))

    def _version(self, number: int, arrays: dict[str, NDArray]) -> Version:
        """Return a version that holds a model once: as the bytes that are sent."""
        payload = to_record(arrays)
        vector = FrozenVector(self._model.spec, views_of(payload))
        return Version(number, vector, payload, dict(self._model.carried))

    def _publish_next(self) -> tuple[ArrayRecord, MetricRecord]:
        self._model.version += 1
        self.statistics.version = self._model.version
        self._publish()
        metrics = MetricRecord()
        if self._metrics:  # a rule may publish without an update in between
            metrics = self._options.aggregate(common_metrics(self._metrics), is_train=True)
        self._metrics.clear()
        self.result.train_metrics_clientapp[self.statistics.version] = metrics
        logger.info("Version %d: %s", self.statistics.version, metrics)
        for callback in self._options.callbacks:
            callback.on_version(self.statistics)
        self._evaluate(self.statistics.version % self._options.evaluate_every == 0)
        return self._current.payload, metrics

    # --- evaluation ---------------------------------------------------------------------------

    def _evaluate(self, is_due: bool) -> None:
        if is_due:
            # A record of its own: whatever evaluate_fn does to it, the version stays as it is.
            arrays = ArrayRecord(dict(self._current.payload))
            self._server_evaluation.submit(self.statistics, arrays)
            self._collect_evaluations()
            self._ask_rule()

    def _ask_rule(self) -> None:
        if self._asked_rule_at == self.statistics.version:
            return
        self._asked_rule_at = self.statistics.version
        if metrics := self._rule.metrics():
            self._record(Evaluation(*moment_of(self.statistics), "rule", metrics))

    def _collect_evaluations(self, wait: bool = False) -> None:
        for evaluation in self._server_evaluation.finished(wait):
            self._record(evaluation)

    def _ask_clients_to_evaluate(self, is_over: bool = False) -> None:
        self._federated_evaluation.ask(self._current.payload, self._job.evaluate_config, is_over)

    def _record(self, evaluation: Evaluation | None) -> None:
        if evaluation is None:
            return
        by_version = {
            "server": self.result.evaluate_metrics_serverapp,
            "clients": self.result.evaluate_metrics_clientapp,
            "rule": self.result.train_metrics_clientapp,
        }[evaluation.source]
        known = dict(by_version.get(evaluation.version, MetricRecord()))
        by_version[evaluation.version] = MetricRecord({**known, **evaluation.metrics})
        self.statistics.evaluations.append(evaluation)
        logger.info(
            "Version %d evaluated by the %s: %s",
            evaluation.version,
            evaluation.source,
            {k: v for k, v in evaluation.metrics.items() if not isinstance(v, list)},
        )
        for callback in self._options.callbacks:
            callback.on_evaluation(self.statistics, evaluation)


def _observation(update: Update) -> Observation:
    return Observation(
        update.node_id,
        update.local_steps,
        update.duration_s,
        update.staleness,
        update.num_examples,
        update.metrics,
    )
