"""The traffic of one run: who is asked, what is in flight, how every dispatch ends."""

import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedagent import keys
from fedagent._flower import pulls_over_network, record_of
from fedagent.callbacks import Settlement
from fedagent.grids import REMOTE, attributes_of, clock_of
from fedagent.nodes.deadlines import Deadlines
from fedagent.nodes.membership import Membership
from fedagent.proxy.ledger import Ledger, Version
from fedagent.proxy.node_info import NodeInfo
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.reply_fetcher import ReplyFetcher
from fedagent.proxy.slots import Slots
from fedagent.proxy.unapplied import Unapplied
from fedagent.scheduling import Assignment, Observation
from fedagent.statistics import Statistics
from fedagent.update import Dispatch, Kind, Outcome
from fedagent.wire.records import payload_bytes

logger = logging.getLogger("flwr.fedagent")

_INTRODUCTION_S = 60.0


@dataclass(slots=True)
class _Unsent:
    """A job that was assigned: the model of its own that the node gets, if any, and its token."""

    base: Version | None = None
    token: str = ""


class Dispatcher:
    """Between the proxy and a grid: ledger, membership, deadlines and the count of it all.

    Times are seconds on the grid's clock since the run began.
    """

    def __init__(self, grid: Grid, options: AsyncOptions, timeout_s: float) -> None:
        self._grid, self._options, self._timeout_s = grid, options, timeout_s
        over_network = pulls_over_network(grid)
        self._pull = ReplyFetcher(grid.pull_messages) if over_network else grid.pull_messages
        deadline_s = timeout_s if options.deadline_s is None else options.deadline_s
        self._limit_s = deadline_s * (1 + options.max_prefetch)  # a queued job waits for others
        factor = options.deadline_factor or (3.0 if over_network else math.inf)
        self._deadlines = Deadlines(deadline_s, factor)
        self._node_info = NodeInfo(grid, over_network and options.per_node is not None)
        self._clock = clock_of(grid)
        self._start_s, self._wall_start_s = self._clock.now(), time.monotonic()
        self.ledger = Ledger()
        self.membership = Membership(options.backoff)
        self.statistics = Statistics(is_virtual=self._clock.is_virtual)
        self._slots = Slots(options, self.membership, self.statistics, self.attributes)
        self._queues = self._slots.queues
        self._due_s = math.inf
        self._unsent: dict[int, deque[_Unsent]] = {}
        self.unapplied = Unapplied()
        self._reported: set[tuple[str, str]] = set()
        self._refresh_at_s = self._quiet_since_s = 0.0
        self._last_failure = "none"

    # --- time and nodes -----------------------------------------------------------------------

    def tick(self) -> None:
        """Read the clock."""
        now = self._clock.now()
        self.statistics.now_s = now - self._start_s
        if now >= self._start_s + self._due_s:
            # What is due is due, although (start + due) - start may round to just below due.
            self.statistics.now_s = max(self.statistics.now_s, self._due_s)
        self.statistics.wall_s = time.monotonic() - self._wall_start_s

    def wait_for_nodes(self, wanted: int) -> str | None:
        """Wait until `wanted` nodes are connected; return why not, if they never were."""
        is_announced = False
        while True:
            self.tick()
            self._refresh_nodes()
            if len(self.membership) >= wanted and self._are_introduced():
                self._quiet_since_s = self.statistics.now_s
                return None
            if self.statistics.now_s > self._timeout_s:
                return (
                    f"stalled: only {len(self.membership)} of min_available_nodes={wanted} "
                    f"nodes connected within {self._timeout_s:g} s"
                )
            if not is_announced:
                logger.info("Waiting for nodes: %d of %d connected", len(self.membership), wanted)
                is_announced = True
            self._announce(self._refresh_at_s)
            self._clock.pause()

    def _are_introduced(self) -> bool:
        """Whether those asked what they are have answered, or had a minute to."""
        if not self._node_info.awaited or self.statistics.now_s > _INTRODUCTION_S:
            return True
        self._node_info.take(self._pull(self._node_info.awaited), self.statistics.now_s)
        return not self._node_info.awaited

    def attributes(self, node_id: int) -> Mapping[str, float]:
        """Return what is known of a node, name -> number; see `fedagent.nodes.geography`."""
        return attributes_of(self._grid, node_id) or self._node_info.of(node_id)

    def _refresh_nodes(self) -> None:
        """Look at the list of nodes if that is due, and wake those whose rest is over."""
        if self.statistics.now_s >= self._refresh_at_s:
            self._refresh_at_s = self.statistics.now_s + self._options.membership_interval_s
            nodes = self._grid.get_node_ids()
            self.membership.refresh(nodes)
            self._deadlines.forget_departed(self.membership)
            self._node_info.meet(nodes, self.statistics.now_s)
            self.statistics.num_nodes = len(self.membership)
            self.statistics.concurrency = self._options.num_training(len(self.membership))
        self.membership.wake(self.statistics.now_s)

    def stalled(self) -> str | None:
        """Return why nothing can go on: nothing in flight and quiet for over the timeout."""
        silent_s = self.statistics.now_s - self._quiet_since_s
        if len(self.ledger) or silent_s <= self._timeout_s:
            return None
        return (
            f"stalled: no node delivered anything for {silent_s:.0f} s "
            f"({len(self.membership)} connected; last failure: {self._last_failure})"
        )

    # --- sending ------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether there is anybody to hand work to."""
        return self._slots.has_room

    def assignments(self) -> Iterator[Assignment]:
        """Yield the jobs that may be handed out now; each must become a message, and be sent."""
        for job in self._slots.assignments():
            self._unsent.setdefault(job.node_id, deque()).append(_Unsent())
            yield job

    def message(
        self,
        kind: Kind,
        arrays: ArrayRecord,
        config: ConfigRecord,
        job: Assignment,
        base: Version | None = None,
    ) -> Message:
        """Build the message that hands `job` to its node; `base` is a model only this node gets."""
        token = secrets.token_hex(8)
        if kind is Kind.TRAIN:
            unsent = next(u for u in self._unsent[job.node_id] if not u.token)
            unsent.token, unsent.base = token, base
            self.unapplied.sent(job.node_id, token)
        arrays = arrays if base is None else base.payload
        config = config.copy()
        config[keys.TOKEN] = token
        if job.local_steps is not None:
            config[keys.LOCAL_STEPS] = job.local_steps
        if job.learning_rate is not None:
            config[keys.LEARNING_RATE] = job.learning_rate
        if job.batch_size is not None:
            config[keys.BATCH_SIZE] = job.batch_size
        content = record_of(
            RecordDict,
            {self._options.arrayrecord_key: arrays, self._options.configrecord_key: config},
        )
        return Message(
            content,
            dst_node_id=job.node_id,
            message_type=str(kind),
            # Twice the deadline: then the grid answers for the node, and it may work again.
            ttl=2 * self._limit_s,
        )

    def send(self, kind: Kind, messages: Iterable[Message]) -> list[Dispatch]:
        """Send messages one by one (a grid reports per call what it could not send)."""
        sent = []
        for message in messages:
            # Read what the client will read: an override of configure_train may have changed it.
            config = message.content.get(self._options.configrecord_key)
            config = config if isinstance(config, ConfigRecord) else ConfigRecord()
            message_id = next((i for i in self._grid.push_messages([message]) if i), "")
            dispatch = Dispatch(
                message_id=message_id,
                node_id=message.metadata.dst_node_id,
                version=self.statistics.version,
                token=str(config.get(keys.TOKEN, "")),
                sent_at_s=self.statistics.now_s,
                deadline_s=self.statistics.now_s + self._deadline_s(message.metadata.dst_node_id),
                kind=kind,
                local_steps=config.get(keys.LOCAL_STEPS),  # type: ignore[arg-type]
                learning_rate=config.get(keys.LEARNING_RATE),  # type: ignore[arg-type]
            )
            unsent = self._unsent.get(dispatch.node_id) if kind is Kind.TRAIN else None
            base = unsent.popleft().base if unsent else None
            if unsent is None:  # an evaluation, or a message that an override made itself
                self.membership.take(dispatch.node_id)
            self.statistics.dispatched(
                kind, payload_bytes(message.content), self._is_remote(dispatch.node_id)
            )
            if kind is Kind.TRAIN:
                self._queues.add(dispatch)
            if message_id:
                self.ledger.open(dispatch, base)
                sent.append(dispatch)
            else:
                self._finish(dispatch, Outcome.FAILED, "not-sent", "the grid refused the message")
        for node_id in sorted(self._unsent):
            for job in self._unsent[node_id]:  # an override of configure_train dropped its message
                self.unapplied.settled(node_id, job.token)
                self.membership.release(node_id, self.statistics.now_s)
                self._options.scheduler.lost(node_id)
        self._unsent.clear()
        return sent

    def _deadline_s(self, node_id: int) -> float:
        return self._deadlines.for_node(node_id) * (1 + self._options.max_prefetch)

    def _is_remote(self, node_id: int) -> bool:
        return bool(attributes_of(self._grid, node_id).get(REMOTE, False))

    def stop_listening(self) -> None:
        """End what fetches replies in the background."""
        if isinstance(self._pull, ReplyFetcher):
            self._pull.close()

    # --- receiving ----------------------------------------------------------------------------

    def pull(self, until_s: float) -> list[Message]:
        """Return the replies that have come; let time pass, at most to `until_s`, if none has."""
        self.statistics.num_idle = min(len(self.membership.idle), len(self.membership))
        awaited = self.ledger.awaited()
        self._announce(self._next_due_s(until_s))
        if asked := self._node_info.awaited:
            replies = self._node_info.take(self._pull([*awaited, *asked]), self.statistics.now_s)
        else:
            replies = list(self._pull(awaited)) if awaited else []
        if not replies:
            self._clock.pause()
        self.tick()
        self._refresh_nodes()
        return replies

    def match(self, reply: Message) -> Dispatch | None:
        """Return the dispatch that a reply answers; a late or unknown one is counted instead."""
        message_id = reply.metadata.reply_to_message_id
        dispatch = self.ledger.get(message_id)
        if dispatch is None:
            late = self.ledger.late(message_id)
            self.statistics.unsolicited["late" if late else "unknown"] += 1
            if late:
                if not reply.has_error():
                    self._deadlines.observe(late.node_id, self.statistics.now_s - late.sent_at_s)
                self._release(late, succeeded=not reply.has_error())
        return dispatch

    def close(
        self,
        dispatch: Dispatch,
        outcome: Outcome,
        reason: str = "",
        detail: str = "",
        received_bytes: int = 0,
        staleness: int | None = None,
        observation: Observation | None = None,
    ) -> None:
        """End a dispatch in flight, with its one outcome; the scheduler learns from `observation`.

        None means that the job came to nothing.
        """
        self.ledger.settle(dispatch.message_id)
        self._finish(dispatch, outcome, reason, detail, received_bytes, staleness, observation)

    def begun_s(self, dispatch: Dispatch) -> float:
        """Return when the node of a dispatch in flight could begin with it."""
        if dispatch.kind is Kind.EVALUATE:
            return dispatch.sent_at_s
        return self._queues.begun_s(dispatch)

    def expire_overdue(self) -> list[Dispatch]:
        """End every dispatch whose deadline has passed; its node gets no work until heard of."""
        expired = []
        while (first := self.ledger.first_due()) and first.deadline_s <= self.statistics.now_s:
            self.ledger.expire(first.message_id)
            self.membership.overdue(first.node_id)
            self._quiet_since_s = self.statistics.now_s  # it may still be heard of, late
            waited_s = first.deadline_s - first.sent_at_s
            self._finish(first, Outcome.EXPIRED, "deadline", f"no reply within {waited_s:g} s")
            expired.append(first)
        return expired

    def end_training(self) -> None:
        """End the training in flight with the run; its nodes stay at work and get nothing new."""
        for dispatch in self.ledger.in_flight():
            if dispatch.kind is Kind.TRAIN:
                self.ledger.expire(dispatch.message_id)
                self._finish(dispatch, Outcome.EXPIRED, "run-ended", "")

    def _announce(self, due_s: float) -> None:
        self._due_s = due_s
        self._clock.wake_at(self._start_s + due_s)

    def _next_due_s(self, until_s: float) -> float:
        due = [until_s]
        if first := self.ledger.first_due():
            due.append(first.deadline_s)
        if self._slots.are_free:
            due += [self._refresh_at_s, self._slots.next_offer_s()]
        return max(min(due), self.statistics.now_s)

    def _finish(
        self,
        dispatch: Dispatch,
        outcome: Outcome,
        reason: str,
        detail: str,
        received_bytes: int = 0,
        staleness: int | None = None,
        observation: Observation | None = None,
    ) -> None:
        begun_s, is_remote = self.begun_s(dispatch), self._is_remote(dispatch.node_id)
        self.statistics.settled(dispatch, outcome, reason, received_bytes, begun_s, is_remote)
        if outcome in (Outcome.FAILED, Outcome.REJECTED):
            self._last_failure = f"node {dispatch.node_id}, {reason}: {detail}"
            is_new = (outcome, reason) not in self._reported
            self._reported.add((outcome, reason))
            logger.log(
                logging.WARNING if is_new else logging.DEBUG,
                "%s: %s%s",
                outcome,
                self._last_failure,
                " (more of this kind are only counted)" if is_new else "",
            )
        # An update that came too late for the rule is the schedule's doing: no rest for that.
        succeeded = outcome is Outcome.APPLIED or reason == "too-stale"
        if dispatch.kind is Kind.TRAIN:
            self._queues.settle(dispatch, self.statistics.now_s, succeeded)
            self.unapplied.settled(dispatch.node_id, dispatch.token)
            if observation is None:
                self._options.scheduler.lost(dispatch.node_id)
            else:
                self._options.scheduler.observe(observation)
        if outcome is not Outcome.EXPIRED:
            self._release(dispatch, succeeded)
        duration_s = self.statistics.now_s - begun_s
        if dispatch.kind is Kind.TRAIN and outcome in (Outcome.APPLIED, Outcome.REJECTED):
            self._deadlines.observe(dispatch.node_id, duration_s)
            self._node_info.observe(dispatch.node_id, duration_s, dispatch.local_steps)
        settlement = Settlement(dispatch, outcome, reason, detail, duration_s, staleness)
        for callback in self._options.callbacks:
            callback.on_settled(self.statistics, settlement)

    def _release(self, dispatch: Dispatch, succeeded: bool) -> None:
        if dispatch.kind is Kind.EVALUATE:  # whether a node can evaluate says nothing of training
            self.membership.release(dispatch.node_id, self.statistics.now_s)
            return
        self.membership.release(dispatch.node_id, self.statistics.now_s, succeeded)
        self._slots.breaker.record(succeeded, self.statistics.now_s)
        if succeeded:
            self._quiet_since_s = self.statistics.now_s
