"""The grid under a synchronous strategy: ends rounds, and counts what they cost."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedagent import keys
from fedagent._flower import Run, pulls_over_network
from fedagent.admission.gate import failure_reason
from fedagent.callbacks import Callback, Settlement
from fedagent.grids import REMOTE, attributes_of
from fedagent.proxy.conduct import DEADLINE, Conduct
from fedagent.proxy.ending import Ending
from fedagent.proxy.reply_fetcher import ReplyFetcher
from fedagent.proxy.run_clock import RunClock
from fedagent.statistics import Statistics
from fedagent.strategies.cutoff import Cutoff, Durations
from fedagent.strategies.sampling import Sampling
from fedagent.update import Dispatch, Kind, Outcome
from fedagent.wire.records import payload_bytes, records_of

NOT_NEEDED = "not-needed"
"""Why a reply is not waited for any more: enough others have come."""


class RoundGrid(Grid):
    """Any grid, as Flower's loop sees it: messages go out, and what is back in time is returned.

    Whoever is not waited for any more goes on working, and what it sends for an earlier round is
    counted as late and dropped. A node that is asked again meanwhile does one job after the other.
    Only training is cut off; evaluation waits as Flower's does, for its ``timeout`` at most.

    Parameters
    ----------
    grid : what sends and receives.
    cutoff : what ends a round of training before everybody has answered.
    sampling : which nodes the strategy sees, and how many replies are enough.
    callbacks : who hears of every job.

    Attributes
    ----------
    statistics : of the run, from the first message to the last.
    conduct : what is learnt of single nodes.
    """

    IS_LIVE = False  # what it counts is state
    UNSAVED: ClassVar = ("_callbacks",)

    def __init__(
        self, grid: Grid, cutoff: Cutoff, sampling: Sampling, callbacks: Sequence[Callback]
    ) -> None:
        self._grid, self._sampling, self._callbacks = grid, sampling, callbacks
        over_network = pulls_over_network(grid)
        self._pull = ReplyFetcher(grid.pull_messages) if over_network else grid.pull_messages
        self.statistics = Statistics()
        self.conduct = Conduct(self.statistics)
        self.run_clock = RunClock(grid, self.statistics)
        self._durations = Durations(cutoff)
        self._awaited: dict[str, Dispatch] = {}
        self._late: dict[str, Dispatch] = {}
        self._at_nodes: dict[int, deque[str]] = {}  # what every node has to do, in order
        self._begun_s: dict[str, float] = {}  # of what nodes are at

    def after_restore(self) -> None:
        """Wait for nobody whom another process has asked, unless it is all simulated."""
        if not self.statistics.is_virtual:
            for asked in (self._late, self._at_nodes, self._begun_s):
                asked.clear()

    def __getattr__(self, name: str) -> Any:
        """Return what else a grid brings along, such as a simulation's clock."""
        return getattr(self._grid, name)

    def set_run(self, run: Run) -> None:
        """Set the grid's run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The grid's run."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Build a message as the grid does."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Return the grid's nodes; while the strategy samples for training, those it is to see."""
        if self._sampling.is_hiding and self._late:
            self._take_late()
        return self._sampling.shown(self._grid.get_node_ids(), self._at_nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send as the grid does, uncounted: Flower's loop does not."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull as the grid does, uncounted: Flower's loop does not."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send one round's messages; return what is back when the round ends, as it came."""
        sent = list(messages)
        if not sent:
            return []
        self.run_clock.tick()
        until_s, enough = math.inf if timeout is None else timeout, len(sent)
        if sent[0].metadata.message_type.startswith(Kind.TRAIN):
            until_s = self._durations.deadline_s(self._under_way_s(), until_s)
            enough = min(enough, self._sampling.enough or enough)
        until_s += self.statistics.now_s
        for message in sent:
            self._send(message, until_s)
        return self._receive(enough, until_s)

    def close(self) -> None:
        """End what fetches replies in the background."""
        if isinstance(self._pull, ReplyFetcher):
            self._pull.close()

    # --- a round ------------------------------------------------------------------------------

    def _send(self, message: Message, until_s: float) -> None:
        node_id, now_s = message.metadata.dst_node_id, self.statistics.now_s
        is_train = message.metadata.message_type.startswith(Kind.TRAIN)
        kind = Kind.TRAIN if is_train else Kind.EVALUATE
        message_id = next((i for i in self._grid.push_messages([message]) if i), "")
        statistics, num_bytes = self.statistics, payload_bytes(message.content)
        dispatch = Dispatch(
            message_id=message_id,
            node_id=node_id,
            version=statistics.version,
            token="",
            sent_at_s=now_s,
            deadline_s=until_s,
            kind=kind,
            local_steps=_local_steps(message),
            bytes_down=num_bytes,
        )
        statistics.dispatched(kind, num_bytes, self._is_remote(node_id))
        if not message_id:
            self._settle(dispatch, Outcome.FAILED, "not-sent", 0, now_s)
            return
        self._awaited[message_id] = dispatch
        jobs = self._at_nodes.setdefault(node_id, deque())
        jobs.append(message_id)
        self._begun_s.setdefault(jobs[0], now_s)
        statistics.concurrency = max(statistics.concurrency, statistics.in_flight)
        if is_train:
            statistics.at_work_max = max(statistics.at_work_max, len(self._at_nodes))
        for callback in self._callbacks:
            callback.on_dispatch(statistics, dispatch)

    def _receive(self, enough: int, until_s: float) -> list[Message]:
        """Wait until nobody is awaited, `enough` nodes have answered, or it is `until_s`."""
        taken: list[Message] = []
        superfluous: list[Message] = []  # of the same moment as the last that was needed
        while self._awaited and enough > 0 and self.statistics.now_s < until_s:
            self.run_clock.announce(until_s)
            replies = list(self._pull([*self._awaited, *self._late]))
            if not replies:
                if self.statistics.is_virtual and until_s == math.inf:
                    break  # nothing is under way any more
                self.run_clock.pause()
            self.run_clock.tick()
            for reply in replies:
                if reply.metadata.reply_to_message_id in self._late:
                    self._count_late(reply)
                elif enough > 0:
                    self._count(reply)
                    taken.append(reply)
                    enough -= not reply.has_error()
                else:
                    superfluous.append(reply)
        self.run_clock.announce(math.inf)
        self._cut_off(DEADLINE if enough > 0 else NOT_NEEDED)
        for reply in superfluous:
            self._count_late(reply)
        return taken

    def _take_late(self) -> None:
        """Learn who is done with an earlier round by now."""
        self.run_clock.tick()
        self.run_clock.announce(self.statistics.now_s)
        for reply in self._pull(list(self._late)):
            self._count_late(reply)
        self.run_clock.announce(math.inf)

    def _cut_off(self, reason: str) -> None:
        for message_id, dispatch in self._awaited.items():
            begun_s = self._begun_s.get(message_id, self.statistics.now_s)  # or it only waited
            self._settle(dispatch, Outcome.EXPIRED, reason, 0, begun_s)
        self._late |= self._awaited
        self._awaited.clear()

    # --- what a reply means -------------------------------------------------------------------

    def _count(self, reply: Message) -> None:
        dispatch = self._awaited.pop(reply.metadata.reply_to_message_id)
        begun_s = self._leave_node(dispatch)
        if reply.has_error():
            reason = failure_reason(reply.error.code)
            self._settle(dispatch, Outcome.FAILED, reason, 0, begun_s)
            return
        if dispatch.kind is Kind.TRAIN:
            self.statistics.received(0, self.statistics.now_s - begun_s)
            self._durations.observe(self.statistics.now_s - begun_s)
        self._settle(dispatch, Outcome.APPLIED, "", payload_bytes(reply.content), begun_s)

    def _count_late(self, reply: Message) -> None:
        """Count a reply that comes to nothing; it was sent all the same."""
        dispatch = self._late.pop(reply.metadata.reply_to_message_id)
        begun_s = self._leave_node(dispatch)
        self.statistics.unsolicited["late"] += 1
        if reply.has_error():
            return
        num_bytes = payload_bytes(reply.content)
        self.statistics.bytes_up += num_bytes
        self.statistics.node_bytes_between_regions += num_bytes * self._is_remote(dispatch.node_id)
        if dispatch.kind is Kind.TRAIN:
            self._durations.observe(self.statistics.now_s - begun_s)

    def _settle(
        self, dispatch: Dispatch, outcome: Outcome, reason: str, num_bytes: int, begun_s: float
    ) -> None:
        is_remote = self._is_remote(dispatch.node_id)
        self.statistics.settled(dispatch, outcome, reason, num_bytes, begun_s, is_remote)
        is_train = dispatch.kind is Kind.TRAIN
        if is_train:
            self.conduct.ended(dispatch.node_id, Ending(outcome, reason))
        settlement = Settlement(
            dispatch,
            outcome,
            reason,
            duration_s=self.statistics.now_s - begun_s,
            staleness=0 if is_train and outcome is Outcome.APPLIED else None,
            bytes_up=num_bytes,
        )
        for callback in self._callbacks:
            callback.on_settled(self.statistics, settlement)

    def _leave_node(self, dispatch: Dispatch) -> float:
        """Let a node go on with its next job; return when it could begin with this one."""
        message_id, now_s = dispatch.message_id, self.statistics.now_s
        begun_s = self._begun_s.pop(message_id, dispatch.sent_at_s)
        jobs = self._at_nodes.get(dispatch.node_id, deque())
        if message_id in jobs:
            while (earlier := jobs.popleft()) != message_id:  # done, or never will be
                self._begun_s.pop(earlier, None)
            if jobs:
                self._begun_s[jobs[0]] = now_s
            else:
                del self._at_nodes[dispatch.node_id]
        return begun_s

    def _under_way_s(self) -> list[float]:
        """Return how long the jobs that nodes are at have taken until now."""
        now_s, begun_s = self.statistics.now_s, self._begun_s
        training = [i for i, late in self._late.items() if late.kind is Kind.TRAIN]
        return [now_s - begun_s[i] for i in training if i in begun_s]

    def _is_remote(self, node_id: int) -> bool:
        return bool(attributes_of(self._grid, node_id).get(REMOTE, False))


def _local_steps(message: Message) -> int | None:
    """Return B_k, where a message asks for it."""
    asked = (c.get(keys.LOCAL_STEPS) for c in records_of(message.content, ConfigRecord).values())
    return next((steps for steps in asked if isinstance(steps, int)), None)
