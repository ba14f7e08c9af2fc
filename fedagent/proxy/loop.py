"""The node in the middle: one event loop that never waits for anybody in particular.

    hand work to idle nodes -> take the replies that have come -> let the rule move the model
      ^                                                                       |
      +----------------------- publish a new version <------------------------+

One thread owns the model. Nothing here knows whether time is real or simulated.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import ClassVar, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedagent.callbacks import tell_end
from fedagent.grids import tell_statistics
from fedagent.proxy.checkpointing import Checkpointing
from fedagent.proxy.composer import Composer
from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.ending import DROPPED, Ending
from fedagent.proxy.evaluations import Evaluations
from fedagent.proxy.federated_evaluation import FederatedEvaluation
from fedagent.proxy.inbox import Inbox
from fedagent.proxy.limits import Limits
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.publishing import Publishing
from fedagent.proxy.replay import Replay
from fedagent.proxy.rounds import RoundConfig, Rounds
from fedagent.proxy.run_end import RunResult
from fedagent.proxy.run_request import RunRequest
from fedagent.proxy.safeguard import Safeguard
from fedagent.proxy.server_evaluation import ServerEvaluation
from fedagent.proxy.termination import termination
from fedagent.proxy.unmasking import Unmasking
from fedagent.proxy.versions import Versions
from fedagent.rules import Rule
from fedagent.stopping import RunEnd
from fedagent.update import Kind

logger = logging.getLogger("flwr.fedagent")


class Proxy:
    """One run: the loop between a rule and a grid.

    Work is handed out and replies are taken in through the four hooks of `strategy`
    (``configure_train`` and so on), so that a subclass that overrides them is heard.
    """

    UNSAVED: ClassVar = ("_request", "_limits", "_checkpointing")

    def __init__(
        self,
        strategy: Strategy,
        rule: Rule,
        options: AsyncOptions,
        grid: Grid,
        request: RunRequest,
    ) -> None:
        self._strategy, self._rule, self._options = strategy, rule, options
        self._grid, self._request = grid, request
        self._dispatcher = Dispatcher(grid, options, request.timeout_s, rule)
        self._ledger, self.statistics = self._dispatcher.ledger, self._dispatcher.statistics
        self._versions = Versions(request.initial_arrays, rule, self._ledger, options.carried)
        self._model = self._versions.model
        self._safeguard = Safeguard(self._versions, rule, self._dispatcher)
        self._inbox = Inbox(options, self._dispatcher, self._versions, rule)
        self._composer = Composer(options, self._dispatcher, self._versions, rule)
        self._train_config = RoundConfig(request.train_config)
        self.result, self._is_over, self._is_told = RunResult(), False, False
        filed = partial(options.aggregate, is_train=True), self.result.train_metrics_clientapp
        self._rounds = Rounds(rule, self.statistics, *filed)
        tell_statistics(grid, self.statistics)
        self._limits = Limits(request, options, self.statistics, self.result)
        self._clients = FederatedEvaluation(strategy, options, grid, self._dispatcher)
        server = ServerEvaluation(request.evaluate_fn, not self.statistics.is_virtual)
        told = self.statistics, self.result, options.callbacks
        self._publishing = Publishing(self._versions, self._safeguard, *told)
        self._evaluations = Evaluations(
            server, self._clients, self._versions, request.evaluate_config, rule, *told
        )
        self._unmasking = Unmasking(options, self._dispatcher, rule, self._model)
        asked = self._evaluations, self._unmasking
        self._others: Mapping[Kind, Evaluations | Unmasking] = {each.KIND: each for each in asked}
        self._replay = Replay(self._dispatcher, self._composer, *asked, options)
        kinds = {"rule": type(rule).__name__, "scheduler": type(options.scheduler).__name__}
        about = {"model": str(self._model.spec.arrays), **kinds}
        saving = options.checkpoint, options.callbacks, self.statistics
        self._checkpointing = Checkpointing(self, *saving, about)

    def run(self) -> RunResult:
        """Train until a stopping condition holds; return Flower's result."""
        self._versions.publish()
        self._rule.on_start(self._model)
        try:
            end = self._begin() or self._limits.end()
            with termination() as must_end:
                while end is None:
                    self._hand_out_work()
                    self._evaluations.ask_clients()
                    self._unmasking.ask()
                    end = self._take_replies() or self._unmasking.stalled()
                    if end is None:  # and nothing is half done
                        self._checkpointing.save(now=must_end())
                        end = self._drain() if must_end() else None
                self._checkpointing.wait()
                self._end(end)
        except BaseException as error:  # Ctrl-C too
            self._tell_end(RunEnd.by(error), because=error)
            raise
        finally:
            self._evaluations.close()
            self._dispatcher.stop_listening()
            self._checkpointing.close()
        return self.result

    def _begin(self) -> RunEnd | None:
        """Wait for nodes and measure the initial model, or go on from a checkpoint."""
        is_resumed = self._checkpointing.restore()
        for callback in self._options.callbacks:
            callback.on_start(self.statistics)
        if is_resumed and self.statistics.is_virtual:
            return None
        if is_resumed:
            self._replay.play(self._checkpointing.logged(), self._take_in)
        end = self._dispatcher.wait_for_nodes(self._options.min_available_nodes)
        if end is None and not is_resumed:
            self._rounds.begin()
            logger.info("At most %d %s", self._request.num_rounds, self._rounds)
        if not is_resumed:
            self._evaluations.evaluate()
        self._checkpointing.begin()
        return end

    # --- the loop's two halves ----------------------------------------------------------------

    def _hand_out_work(self) -> None:
        """Let the strategy configure jobs for free slots."""
        if not self._dispatcher.slots.has_room:
            return
        number = self._rounds.current
        payload, config = self._versions.current.payload, self._train_config.of(number)
        messages = self._strategy.configure_train(number, payload, config, self._grid)
        sent = self._dispatcher.send(Kind.TRAIN, messages)
        self._checkpointing.sent((d, self._ledger.has_own_base(d)) for d in sent)

    def _take_replies(self) -> RunEnd | None:
        """Take in what has come, or wait a little. Return the end, if a condition holds."""
        due_s = math.inf if self._is_over else self._rule.next_due_s()
        replies = self._dispatcher.pull(min(self._limits.until_s, due_s))
        work, dispatcher = self._ledger.work_in(replies), self._dispatcher
        self._checkpointing.came(work, dispatcher.membership.nodes, dispatcher.slots.num_heard)
        self._evaluations.collect()
        end = self._take_in(replies)
        for dispatch in self._dispatcher.expire_overdue():
            if other := self._others.get(dispatch.kind):
                other.settle(dispatch)
        if self._unmasking.tell_rule(self._checkpointing.summed):
            self._advance()
        return end

    def _take_in(self, replies: Iterable[Message]) -> RunEnd | None:
        """Take in what has come by now. Return the end, if a condition holds."""
        self._advance()
        end = self._limits.end()
        for reply in replies:
            self._take(reply, is_over=end is not None)
            end = end or self._limits.end()
        return end

    def _take(self, reply: Message, is_over: bool) -> None:
        if (dispatch := self._dispatcher.match(reply)) is None:
            return
        if other := self._others.get(dispatch.kind):
            other.take(dispatch, reply)
        elif not is_over:  # or it came after the end and expires with the run
            self._strategy.aggregate_train(self._rounds.current, [reply])
            if self._ledger.get(dispatch.message_id) is not None:
                self._dispatcher.close(dispatch, DROPPED)

    def _drain(self) -> RunEnd:
        """Take in what is in flight, if it comes soon; return the end.

        Of simulated time there is no soon: what is in flight may take hours of work.
        """
        drain_s = 0.0 if self.statistics.is_virtual else self._options.drain_s
        logger.info("SIGTERM: no new work; %g s for the %d in flight", drain_s, len(self._ledger))
        self._limits.until_s = min(self._limits.until_s, self.statistics.now_s + drain_s)
        while len(self._ledger) and not self._limits.are_past:
            if end := self._take_replies():
                return end
        return RunEnd("stopped", "SIGTERM")

    def _end(self, end: RunEnd) -> None:
        (logger.error if end.has_failed else logger.info)("Run ends: %s", end)
        self._is_over = True
        self._dispatcher.end_all(Kind.TRAIN)
        self._finish_sums()
        # A limit has done its work, and must not keep the clock from moving; a drain has not.
        self._limits.until_s = self._limits.until_s if end.kind == "stopped" else math.inf
        if self._rounds.has_versions:  # the end came within a round
            self._rounds.close()
        self._evaluations.evaluate()
        self._evaluations.collect(wait=True)
        trained_s = self.statistics.now_s
        self._evaluations.ask_clients(is_over=True)
        while self._is_awaited(self._evaluations.are_awaited):
            self._take_replies()
        for dispatch in self._dispatcher.end_all(Kind.EVALUATE):
            self._evaluations.settle(dispatch)
        self.statistics.now_s = trained_s  # how long training took, not its examination
        self._tell_end(end)

    def _finish_sums(self) -> None:
        """Publish the sums of updates that were counted already, if there is time for them."""
        while self._is_awaited(self._unmasking.is_under_way):
            self._unmasking.ask()
            self._take_replies()
            self._publishing.advance(lambda: not self._limits.allow_version)
        self._unmasking.end()

    def _is_awaited(self, is_under_way: bool) -> bool:
        """Whether what is under way after the end is worth a wait."""
        return is_under_way and not self._limits.are_past and not self._unmasking.stalled()

    def _tell_end(self, end: RunEnd, because: BaseException | None = None) -> None:
        if self._is_told:  # and what a callback made of it is the error now
            return
        self._is_told = True
        self.result.end, self.result.arrays = end, (arrays := self._versions.current.payload)
        self._dispatcher.conduct.tell()
        tell_end(self._options.callbacks, self.statistics, end, lambda: arrays, because)

    # --- what the strategy's hooks call -------------------------------------------------------

    def train_messages(self, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        """Return the messages for the jobs that may go out now."""
        return self._composer.train(arrays, config)

    def evaluate_messages(self, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        """Return one message for each node that is to evaluate after the last round."""
        return self._composer.evaluate(self._clients.chosen, arrays, config)

    def receive(self, reply: Message) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take in the reply to a train dispatch.

        Returns
        -------
        If the reply completes a round, the newest version that came out in it and the metrics of
        its clients; else twice None.
        """
        received = self._inbox.read(reply)
        if received is None:
            return None, None
        dispatch, update, applied = received.dispatch, received.update, received.applied
        del received  # and soon the update: a version needs its memory
        metrics = cast(MetricRecord, update.metrics).copy()
        if self._options.max_prefetch:
            number = self._versions.number_for(dispatch.node_id)
            self._dispatcher.jobs.receive(dispatch, number)
        staleness, duration_s = update.staleness, update.duration_s
        self._safeguard.watch(update)
        is_published = self._rule.receive(self._model, update)
        del update
        if not self._safeguard.is_sound(is_published, dispatch.node_id):
            rejection = self._safeguard.undo(dispatch.node_id)
            self._dispatcher.close(dispatch, Ending.by(rejection, applied.received_bytes))
            return None, None
        self._rounds.add(metrics)
        self.statistics.received(staleness, duration_s)
        self.statistics.buffered = self._rule.pending
        self._dispatcher.close(dispatch, applied)
        if is_published:
            self._publishing.publish()
        self._advance()
        return self._complete_round() if self._rounds.is_complete else (None, None)

    def _advance(self) -> None:
        """Let the rule do what is due by now."""
        if self._publishing.is_due():
            self._checkpointing.due()
        self._publishing.advance(lambda: self._is_over or self._limits.end() is not None)

    # --- rounds -------------------------------------------------------------------------------

    def _complete_round(self) -> tuple[ArrayRecord | None, MetricRecord]:
        """Count a round; the last one leaves nothing in a buffer that holds more than a round."""
        if self._rounds.current >= self._request.num_rounds:
            self._publishing.flush()
        arrays = self._versions.current.payload if self._rounds.has_versions else None
        metrics = self._rounds.close()
        if self.statistics.server_round % self._options.evaluate_every == 0:
            self._evaluations.evaluate()
        self._rounds.begin()
        return arrays, metrics
