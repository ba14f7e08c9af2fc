"""The traffic of one run: who is asked, what is in flight, how every dispatch ends."""

import logging
import math
from collections.abc import Iterable, Mapping
from functools import partial

from flwr.app import Message
from flwr.serverapp import Grid

from fedagent._flower import is_from_node, pulls_over_network
from fedagent.grids import REMOTE, attributes_of
from fedagent.nodes.backoff import Breaker
from fedagent.nodes.deadlines import Deadlines
from fedagent.nodes.membership import Membership
from fedagent.proxy.codecs import NodeCodecs
from fedagent.proxy.conduct import RUN_ENDED, Conduct, overdue
from fedagent.proxy.ending import Ending
from fedagent.proxy.jobs import Jobs
from fedagent.proxy.ledger import Ledger
from fedagent.proxy.node_info import NodeInfo
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.outbox import Outbox
from fedagent.proxy.reply_fetcher import ReplyFetcher
from fedagent.proxy.run_clock import RunClock
from fedagent.proxy.silence import Silence
from fedagent.proxy.slots import Slots
from fedagent.rules import Rule
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd
from fedagent.update import Dispatch, Kind, Outcome

logger = logging.getLogger("flwr.fedagent")


class Dispatcher:
    """Between the proxy and a grid: ledger, membership, deadlines and the count of it all.

    Times are seconds on the grid's clock since the run began.

    Attributes
    ----------
    ledger, jobs, membership, statistics : of this run.
    slots : which jobs may be handed out now.
    outbox : builds the messages that hand them out.
    codecs : what nodes can decode.
    conduct : what is learnt of single nodes.
    clock : of this run.
    """

    def __init__(self, grid: Grid, options: AsyncOptions, timeout_s: float, rule: Rule) -> None:
        self._grid, self._options, self._timeout_s = grid, options, timeout_s
        over_network = pulls_over_network(grid)
        self._pull = ReplyFetcher(grid.pull_messages) if over_network else grid.pull_messages
        deadline_s = timeout_s if options.deadline_s is None else options.deadline_s
        self._queue_length = 1 + options.max_prefetch  # a queued job waits for others
        factor = options.deadline_factor or (3.0 if over_network else math.inf)
        self._deadlines = Deadlines(deadline_s, factor)
        self._node_info = NodeInfo(grid, over_network and options.per_node is not None)
        self.ledger, self.jobs, self.statistics = Ledger(), Jobs(), Statistics()
        self.clock, self.conduct = RunClock(grid, self.statistics), Conduct(self.statistics)
        self.membership, self._breaker = Membership(options.backoff), Breaker(options.backoff)
        books = self.membership, self.jobs, self.ledger, self._breaker, self.statistics
        self.slots = Slots(options, *books, self.attributes, rule)
        coding = options.coding(in_simulation=not over_network)
        self.codecs = NodeCodecs(coding, self.ledger, self.jobs)
        self.outbox = Outbox(grid, options, self.jobs, self._ttl_s, over_network, self.codecs)
        self._silence = Silence(max(timeout_s, deadline_s))
        self._refresh_at_s = 0.0

    # --- nodes --------------------------------------------------------------------------------

    def wait_for_nodes(self, wanted: int) -> RunEnd | None:
        """Wait until `wanted` nodes are connected; return why not, if they never were."""
        is_announced, self._refresh_at_s = False, self.statistics.now_s
        until_s = self.statistics.now_s + self._timeout_s
        while True:
            self.clock.tick()
            if asked := self._node_info.awaited:
                self._without_answers(self._pull(asked))
            self._refresh_nodes()
            if len(self.membership) >= wanted:
                self._silence.succeeded(self.statistics.now_s)
                return None
            if self.statistics.now_s > until_s:
                return RunEnd(
                    "stalled",
                    f"only {len(self.membership)} of min_available_nodes={wanted} nodes connected "
                    f"within {self._timeout_s:g} s",
                )
            if not is_announced:
                logger.info("Waiting for nodes: %d of %d connected", len(self.membership), wanted)
                is_announced = True
            self.clock.announce(self._refresh_at_s)
            self.clock.pause()

    def attributes(self, node_id: int) -> Mapping[str, float]:
        """Return what is known of a node, name -> number; see `fedagent.nodes.geography`."""
        return attributes_of(self._grid, node_id) or self._node_info.of(node_id)

    def _is_remote(self, node_id: int) -> bool:
        return bool(attributes_of(self._grid, node_id).get(REMOTE, False))

    def _refresh_nodes(self) -> None:
        """Look at the list of nodes if that is due, and wake those whose rest is over."""
        now_s = self.statistics.now_s
        if now_s >= self._refresh_at_s:
            self._refresh_at_s = now_s + self._options.membership_interval_s
            self.see(self._node_info.meet(self._grid.get_node_ids(), now_s))
        self.membership.wake(now_s)

    def see(self, nodes: Iterable[int]) -> None:
        """Take over which nodes are connected."""
        self.membership.refresh(nodes)
        self._deadlines.forget_departed(self.membership)
        self.slots.adjust()

    def _without_answers(self, replies: Iterable[Message]) -> list[Message]:
        """Keep what nodes say of themselves; return the other replies."""
        num_asked = len(self._node_info.awaited)
        others = self._node_info.take(replies, self.statistics.now_s)
        if len(self._node_info.awaited) < num_asked:
            self._refresh_at_s = self.statistics.now_s  # who has answered may work
        return others

    def stalled(self) -> RunEnd | None:
        """Return why nothing can go on: nobody may work, or brought anything within the timeout."""
        now_s = self.statistics.now_s
        self._silence.warn_if_due(now_s, len(self.membership))
        is_idle = len(self.ledger) == 0
        silent_s = self._silence.over(now_s, is_idle)
        if (end := self.slots.over(is_silent=silent_s is not None)) is not None:
            return end
        what = None if silent_s is None else f"no node delivered anything for {silent_s:.0f} s"
        if is_idle:
            what = what or self.conduct.hopeless()
        if what is None:
            return None
        connected = f"{len(self.membership)} connected"
        return RunEnd("stalled", f"{what} ({connected}; last failure: {self.conduct.last_failure})")

    # --- sending ------------------------------------------------------------------------------

    def send(self, kind: Kind, messages: Iterable[Message]) -> list[Dispatch]:
        """Send messages; return the dispatches that the grid took."""
        taken = []
        deadline_s = partial(self._deadline_s, kind=kind)
        for sent in self.outbox.send(kind, messages, self.statistics, deadline_s):
            dispatch = sent.dispatch
            if not sent.is_assigned:  # an evaluation, or a message that an override made itself
                self.membership.take(dispatch.node_id)
            is_remote = self._is_remote(dispatch.node_id)
            self.statistics.dispatched(kind, sent.num_bytes, is_remote)
            if dispatch.message_id:
                self.ledger.open(dispatch, sent.base)
                taken.append(dispatch)
                for callback in self._options.callbacks:
                    callback.on_dispatch(self.statistics, dispatch)
            else:
                refused = Ending(Outcome.FAILED, "not-sent", sent.refusal)
                self._finish(dispatch, refused)
        if taken and kind is Kind.TRAIN:
            at_work_max = max(self.statistics.at_work_max, self.membership.num_at_work)
            self.statistics.at_work_max = at_work_max
        for job in self.jobs.drop_unsent():  # an override of configure_train dropped its message
            self.membership.release(job.node_id, self.statistics.now_s)
            self._options.scheduler.lost(job.node_id)
        return taken

    def _deadline_s(self, node_id: int, kind: Kind = Kind.TRAIN) -> float:
        secure = self._options.secure
        if kind is Kind.UNMASK and secure is not None and secure.deadline_s is not None:
            return secure.deadline_s
        return self._deadlines.for_node(node_id) * self._queue_length

    def _ttl_s(self, node_id: int) -> float:
        """Return after how long the grid answers for a node, which may work again then."""
        return 2 * self._deadline_s(node_id)

    # --- receiving ----------------------------------------------------------------------------

    def pull(self, until_s: float) -> list[Message]:
        """Return the replies that have come; let time pass, at most to `until_s`, if none has."""
        self.statistics.num_idle = min(len(self.membership.idle), len(self.membership))
        awaited = self.ledger.awaited()
        self.clock.announce(self._next_due_s(until_s))
        if asked := self._node_info.awaited:
            replies = self._without_answers(self._pull([*awaited, *asked]))
        else:
            replies = list(self._pull(awaited)) if awaited else []
        if not replies:
            self.clock.pause()
        self.clock.tick()
        if any(map(is_from_node, replies)):
            self._silence.heard(self.statistics.now_s)
        self._refresh_nodes()
        self.slots.look()
        return replies

    def _next_due_s(self, until_s: float) -> float:
        due = [until_s, self._silence.next_due_s()]
        if first := self.ledger.first_due():
            due.append(first.deadline_s)
        if self.slots.are_free:
            due += [self._refresh_at_s, self.slots.next_offer_s()]
        return max(min(due), self.statistics.now_s)

    def match(self, reply: Message) -> Dispatch | None:
        """Return the dispatch that a reply answers; a late or unknown one is counted instead."""
        message_id = reply.metadata.reply_to_message_id
        dispatch = self.ledger.get(message_id)
        if dispatch is None:
            late = self.ledger.late(message_id)
            self.statistics.unsolicited["late" if late else "unknown"] += 1
            if late:  # also if the grid answers: then the node takes so long at least
                self._deadlines.observe(late.node_id, self.statistics.now_s - late.sent_at_s)
                self._release(late, succeeded=not reply.has_error(), is_late=True)
        return dispatch

    def stop_listening(self) -> None:
        """End what fetches replies in the background."""
        if isinstance(self._pull, ReplyFetcher):
            self._pull.close()

    # --- the end of a dispatch ----------------------------------------------------------------

    def close(self, dispatch: Dispatch, ending: Ending) -> None:
        """End a dispatch in flight, in its one way."""
        self.ledger.settle(dispatch.message_id)
        self._finish(dispatch, ending)

    def expire_overdue(self) -> list[Dispatch]:
        """End every dispatch whose deadline has passed; its node gets no work until heard of."""
        expired = []
        while (first := self.ledger.first_due()) and first.deadline_s <= self.statistics.now_s:
            self.membership.overdue(first.node_id)
            self._expire(first, overdue(first))
            expired.append(first)
        return expired

    def end_all(self, kind: Kind) -> list[Dispatch]:
        """End with the run what is in flight; its nodes stay at work and get nothing new."""
        ended = [dispatch for dispatch in self.ledger.in_flight() if dispatch.kind is kind]
        for dispatch in ended:
            self._expire(dispatch, Ending(Outcome.EXPIRED, RUN_ENDED))
        return ended

    def _expire(self, dispatch: Dispatch, ending: Ending) -> None:
        self.ledger.expire(dispatch.message_id)
        self._finish(dispatch, ending)

    def begun_s(self, dispatch: Dispatch) -> float:
        """Return when the node of a dispatch in flight could begin with it."""
        if dispatch.kind is not Kind.TRAIN:
            return dispatch.sent_at_s
        return self.jobs.begun_s(dispatch)

    def _finish(self, dispatch: Dispatch, ending: Ending) -> None:
        begun_s, is_remote = self.begun_s(dispatch), self._is_remote(dispatch.node_id)
        duration_s = self.statistics.now_s - begun_s
        self.statistics.settled(
            dispatch, ending.outcome, ending.reason, ending.received_bytes, begun_s, is_remote
        )
        if ending.outcome in (Outcome.FAILED, Outcome.REJECTED):
            self.conduct.failed(dispatch.node_id, ending)
        if dispatch.kind is Kind.TRAIN:
            self._learn(dispatch, ending, duration_s)
        if ending.outcome is not Outcome.EXPIRED:
            self._release(dispatch, ending.succeeded)
        settlement = ending.settlement(dispatch, duration_s)
        for callback in self._options.callbacks:
            callback.on_settled(self.statistics, settlement)

    def _learn(self, dispatch: Dispatch, ending: Ending, duration_s: float) -> None:
        """Let everybody know, once, how a job of a node went."""
        self.jobs.end(dispatch, self.statistics.now_s, ending.succeeded)
        self.conduct.ended(dispatch.node_id, ending)
        if ending.observation is not None:
            self._options.scheduler.observe(ending.observation)
            self.slots.observe(ending.observation)
            self.statistics.weigh(dispatch.node_id, ending.weight)
        else:
            self._options.scheduler.lost(dispatch.node_id)
        if ending.outcome is Outcome.APPLIED:
            self.codecs.applied(dispatch)
        if ending.outcome in (Outcome.APPLIED, Outcome.REJECTED):
            self._deadlines.observe(dispatch.node_id, duration_s)
            self._node_info.observe(dispatch.node_id, duration_s, dispatch.local_steps)

    def _release(self, dispatch: Dispatch, succeeded: bool, is_late: bool = False) -> None:
        now_s, is_train = self.statistics.now_s, dispatch.kind is Kind.TRAIN
        tells = succeeded if is_train else None  # what else it can do says nothing of training
        self.membership.release(dispatch.node_id, now_s, tells, is_late)
        if not is_train:
            return
        self._breaker.record(succeeded, now_s)
        if succeeded:
            self._silence.succeeded(now_s)
