"""The events of a simulated fleet: jobs reach their nodes, are done there, and end."""

import math
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import ClassVar, NamedTuple

from flwr.app import ConfigRecord, Error, Message, RecordDict, UserConfig

from fedagent import keys
from fedagent._flower import ErrorCode, Run, set_message_id
from fedagent.admission.gate import failure_reason
from fedagent.simulation.clock import EventQueue, VirtualClock
from fedagent.simulation.fleets import Fleet
from fedagent.simulation.nodes import Node, Nodes, SimulatedJob
from fedagent.simulation.workers.base import Executor
from fedagent.simulation.workers.randomness import forget_spare_normal
from fedagent.simulation.workers.work import WorkItem
from fedagent.statistics import Statistics
from fedagent.update import Dispatch, Kind, Outcome
from fedagent.wire.records import payload_bytes, records_of


class JobFate(NamedTuple):
    """How a job goes: `dies_after` is the part of it after which it dies, if it does."""

    factor: float = 1.0
    dies_after: float | None = None
    falls_silent: bool = False


class Engine:
    """Lets jobs take the virtual time that their nodes' profiles say, and the executor do them.

    Attributes
    ----------
    clock : the virtual clock, which moves from event to event.
    statistics : what has happened, whatever strategy drives it.
    nodes : the fleet's nodes.
    run : whose jobs these are.
    arrived : replies not fetched yet, by the id of their message.
    """

    UNSAVED: ClassVar = ("run", "_fleet", "_executor", "_run_config")

    def __init__(
        self, fleet: Fleet, executor: Executor, run: Run, run_config: UserConfig, seed: int
    ) -> None:
        self.clock = VirtualClock()
        self.statistics = Statistics(is_virtual=True)
        self.nodes = Nodes(fleet)
        self.run = run
        self.arrived: dict[str, Message] = {}
        self._fleet, self._executor, self._seed = fleet, executor, seed
        self._run_config = run_config
        self._events: EventQueue[partial[None]] = EventQueue()
        self._num_messages = self._num_jobs = 0
        self._under_way: dict[str, SimulatedJob] = {}  # those that somebody waits for
        self._at_work: Counter[int] = Counter()

    def after_restore(self) -> None:
        """Hand out again what was being worked on: the same jobs, from the same seeds."""
        for finish_s, event in self._events:
            job = event.args[0]
            if event.func == self._finish:
                job.work = self._executor.submit(self._item(job), finish_s)

    # --- time ---------------------------------------------------------------------------------

    @property
    def has_events(self) -> bool:
        """Whether anything is still going to happen."""
        return bool(self._events)

    def next_s(self) -> float:
        """Return when the next event happens, or infinity."""
        return self._events.next_s()

    def step(self) -> None:
        """Let the next event happen, and the clock move on to it."""
        time_s, event = self._events.pop()
        self.clock.advance_to(time_s)
        event()

    def pass_time_until(self, time_s: float) -> None:
        """Let all events up to `time_s` happen, and the clock move on to it."""
        while self._events.next_s() <= time_s:
            self.step()
        self.clock.advance_to(time_s)

    # --- a job's life -------------------------------------------------------------------------

    def accept(self, message: Message) -> str:
        """Give a message the id that its reply will name."""
        self._num_messages += 1
        message_id = f"sim-{self._num_messages}"
        set_message_id(message, message_id)
        return message_id

    def begin(self, message: Message) -> None:
        """Hand an accepted message to its node; of equal times, what begins first ends first."""
        self._num_jobs += 1
        message_id = message.metadata.message_id
        node, now_s = self.nodes.get(message.metadata.dst_node_id), self.clock.now()
        is_train = message.metadata.message_type.startswith(Kind.TRAIN)
        kind = Kind.TRAIN if is_train else Kind.EVALUATE
        dispatch = Dispatch(message_id, node.node_id, 0, "", now_s, math.inf, kind)
        num_bytes = payload_bytes(message.content)
        self._tick()
        self.statistics.dispatched(kind, num_bytes, node.profile.is_remote)
        self.statistics.concurrency = max(self.statistics.concurrency, self.statistics.in_flight)
        self._at_work[node.node_id] += 1
        if is_train:
            at_work_max = max(self.statistics.at_work_max, len(self._at_work))
            self.statistics.at_work_max = at_work_max
        job = SimulatedJob(self._num_jobs, message, node, dispatch, begun_s=now_s)
        self._under_way[message_id] = job
        begin_s = max(now_s, node.downloaded_s)
        node.downloaded_s = node.profile.downloaded_s(begin_s, num_bytes)
        job.ready_s = node.profile.latency_s + node.downloaded_s
        node.waiting.append(job)
        self._begin_next(node)

    def expire(self, message_ids: Iterable[str]) -> None:
        """Count messages as expired that nobody waits for any more; their nodes go on working."""
        for message_id in message_ids:
            job = self._under_way.pop(message_id, None)
            if job is not None:
                self._tick()
                is_at_it = job.node.current is job or job.content is not None
                begun_s = job.begun_s if is_at_it else self.clock.now()
                self._settle(job, Outcome.EXPIRED, "deadline", 0, begun_s)

    def _begin_next(self, node: Node) -> None:
        if node.current is not None or not node.waiting:
            return
        node.current = job = node.waiting.popleft()
        node.jobs_begun += 1
        job.begun_s = max(job.begun_s, self.clock.now())
        now_s, profile = self.clock.now(), node.profile
        if not profile.is_online(now_s):
            self._fail_at(now_s, job, ErrorCode.NODE_UNAVAILABLE, "the node is offline")
            return
        fate = self._fate(node)
        work_s = self._steps(job.message) * profile.seconds_per_step * fate.factor
        finish_s = max(now_s, job.ready_s) + work_s
        job.leaves_s = profile.next_change_s(now_s)
        if fate.dies_after is not None:
            finish_s = now_s + (finish_s - now_s) * fate.dies_after
        if job.leaves_s < finish_s:
            self._fail_at(job.leaves_s, job, ErrorCode.NODE_UNAVAILABLE, "the node went offline")
        elif fate.dies_after is not None:
            self._fail_at(finish_s, job, ErrorCode.CLIENT_APP_CRASHED, "simulated failure")
        elif fate.falls_silent:
            self._events.add(finish_s, job.number, partial(self._leave, job))
            lapses_s = job.dispatch.sent_at_s + job.message.metadata.ttl
            self._events.add(lapses_s, job.number, partial(self._lapse, job))
        else:
            job.work = self._executor.submit(self._item(job), finish_s)
            self._events.add(finish_s, job.number, partial(self._finish, job))

    def _fate(self, node: Node) -> JobFate:
        """Draw how the job that a node begins goes, from a generator of (node, job)."""
        profile, jitter = node.profile, self._fleet.jitter
        if not (profile.failure_rate or profile.silence_rate or jitter):
            return JobFate()
        chance = self._fleet.generator(node.index, node.jobs_begun)
        dies, falls_silent = chance.random(2) < (profile.failure_rate, profile.silence_rate)
        factor = self._fleet.job_factor(chance)
        return JobFate(factor, chance.random() if dies else None, bool(falls_silent))

    def _item(self, job: SimulatedJob) -> WorkItem:
        node = job.node
        return WorkItem(
            message=job.message,
            run_id=self.run.run_id,
            node_id=node.node_id,
            node_config={"partition-id": node.index, "num-partitions": self._fleet.num_nodes},
            run_config=self._run_config,
            state=node.state,
            seed=(self._seed, node.index, node.jobs_begun),
        )

    def _steps(self, message: Message) -> int:
        named = (
            record[keys.LOCAL_STEPS]
            for record in records_of(message.content, ConfigRecord).values()
            if keys.LOCAL_STEPS in record
        )
        return int(next(named, self._fleet.default_steps))  # type: ignore[arg-type]

    def _fail_at(self, time_s: float, job: SimulatedJob, code: int, reason: str) -> None:
        job.content = Error(code, reason)
        self._events.add(time_s, job.number, partial(self._arrive, job))

    def _finish(self, job: SimulatedJob) -> None:
        """Wait for the real work of the job that virtually is done now, and upload its reply."""
        assert job.work is not None
        result = self._executor.result(job.work)
        forget_spare_normal()
        job.node.state, job.content = result.state, result.content
        arrives_s = self.clock.now()
        if isinstance(result.content, RecordDict):
            job.reply_bytes = payload_bytes(result.content)
            begin_s = max(arrives_s, job.node.uploaded_s)
            arrives_s = job.node.profile.uploaded_s(begin_s, job.reply_bytes)
            job.node.uploaded_s = arrives_s
        if job.leaves_s < arrives_s:
            self._fail_at(job.leaves_s, job, ErrorCode.NODE_UNAVAILABLE, "the node went offline")
        elif arrives_s > self.clock.now():
            self._events.add(arrives_s, job.number, partial(self._arrive, job))
        else:
            self._arrive(job)
        self._free(job)

    def _arrive(self, job: SimulatedJob) -> None:
        assert job.content is not None
        self.arrived[job.dispatch.message_id] = Message(job.content, reply_to=job.message)
        self._leave(job)

    def _lapse(self, job: SimulatedJob) -> None:
        """Answer for a node that fell silent, as Flower does when a message's TTL is over."""
        error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "no reply within the message's TTL")
        self.arrived[job.dispatch.message_id] = Message(error, reply_to=job.message)

    def _leave(self, job: SimulatedJob) -> None:
        """Count how the job ended and let the node go on with its next one."""
        outcome, reason, size = Outcome.EXPIRED, "silent", 0
        if isinstance(job.content, Error):
            outcome, reason = Outcome.FAILED, failure_reason(job.content.code)
        elif job.content is not None:
            outcome, reason, size = Outcome.APPLIED, "", job.reply_bytes
        self._tick()
        node_id = job.node.node_id
        self._at_work[node_id] -= 1
        if not self._at_work[node_id]:
            del self._at_work[node_id]
        if self._under_way.pop(job.dispatch.message_id, None) is None:
            self._count_late(job, size)
        else:
            self._settle(job, outcome, reason, size, job.begun_s)
            if outcome is Outcome.APPLIED and job.dispatch.kind is Kind.TRAIN:
                self.statistics.received(0, self.clock.now() - job.begun_s)
        self._free(job)

    def _settle(
        self, job: SimulatedJob, outcome: Outcome, reason: str, size: int, begun_s: float
    ) -> None:
        is_remote = job.node.profile.is_remote
        self.statistics.settled(job.dispatch, outcome, reason, size, begun_s, is_remote)

    def _count_late(self, job: SimulatedJob, size: int) -> None:
        if job.content is not None:  # else its node fell silent
            self.statistics.unsolicited["late"] += 1
        self.statistics.bytes_up += size
        self.statistics.node_bytes_between_regions += size * job.node.profile.is_remote

    def _free(self, job: SimulatedJob) -> None:
        """Let the node go on with its next job, if it is still at this one."""
        if job.node.current is job:
            job.node.current = None
            self._begin_next(job.node)
        self.nodes.let_go(job.node, self.clock.now())

    def _tick(self) -> None:
        self.statistics.now_s = self.clock.now()
