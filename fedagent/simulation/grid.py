"""A Flower grid over a simulated fleet: real work, virtual time."""

import itertools
import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from typing import ClassVar

from flwr.app import Message, RecordDict, UserConfig
from flwr.serverapp import Grid

from fedagent._flower import Run
from fedagent.simulation.engine import Engine
from fedagent.simulation.fleets import Fleet
from fedagent.simulation.nodes import Online
from fedagent.simulation.server_threads import ServerThreads
from fedagent.simulation.workers.base import Executor
from fedagent.statistics import Statistics

_LOOK_S = 5e-4  # real time between two looks at threads that are not at rest yet


class _Wait:
    """A thread that waits for replies to messages, at most until a virtual time."""

    def __init__(self, wanted: Set[str], until_s: float, lock: threading.RLock) -> None:
        self.wanted, self.until_s, self.is_over = wanted, until_s, False
        self.thread, self.is_asleep = threading.current_thread(), False
        self._lock = lock
        self._woken: threading.Condition | None = None  # few ever sleep

    def sleep(self, real_s: float | None = None) -> None:
        """Give the lock to others until woken."""
        self._woken = self._woken or threading.Condition(self._lock)
        self.is_asleep = True
        self._woken.wait(real_s)
        self.is_asleep = False

    def wake(self) -> None:
        """Let the thread go on, if it sleeps."""
        self.is_asleep = False
        if self._woken is not None:
            self._woken.notify()


class SimulationGrid(Grid):
    """Runs unmodified ClientApps and gives them a fleet.

    A job takes ``latency + download + steps * seconds_per_step + upload`` virtual seconds of its
    node's profile. A node works on one job after the other, in the order sent; what waits for it is
    downloaded meanwhile, one after the other, and so are replies uploaded. Replies arrive in the
    order of (virtual time, dispatch number), however long the real work takes, which goes on in the
    executor while the clock stands still: only the job with the earliest possible arrival is waited
    for.

    `pull_messages` returns what has virtually arrived and moves the clock to the next arrival if
    nothing has, at most to what ``clock.wake_at`` announced.

    Several threads may use the grid, as those of a ``ServerApp(server_fn=...)`` do, one for each
    client. The clock moves only while all of the ServerApp's threads are at rest. What they have
    sent until then left at one moment, so it begins in the order of nodes, whichever thread came
    first, and neither times nor bytes depend on how threads are scheduled. Which of two threads
    sends first to one node at one moment is the ServerApp's to say.

    Attributes
    ----------
    clock : the virtual clock.
    num_nodes : of the fleet, whether or not they are online.
    statistics : what the grid has seen, whatever strategy drives it.
    run_statistics : what a strategy of fedagent's says of its run; None if there was none.
    """

    IS_LIVE = False  # of a simulated fleet everything is state
    UNSAVED: ClassVar = ("num_nodes", "_lock", "_threads", "_sent", "_waits", "_is_calm", "_looks")

    def __init__(
        self, fleet: Fleet, executor: Executor, run: Run, run_config: UserConfig, seed: int = 0
    ) -> None:
        self._engine = Engine(fleet, executor, run, run_config, seed)
        self._nodes, self.clock = self._engine.nodes, self._engine.clock
        self.statistics = self._engine.statistics
        self.num_nodes = fleet.num_nodes
        self.run_statistics: Statistics | None = None
        self._lock = threading.RLock()
        self._threads = ServerThreads()
        self._sent: dict[threading.Thread, list[Message]] = {}
        self._waits: list[_Wait] = []
        self._is_calm = False
        self._looks: Counter[threading.Thread] = Counter()

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._engine.run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._engine.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Build a message (deprecated by Flower in favour of its constructor)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are online now, without a list of them.

        Flower's strategies wait for nodes by looking again and again. The fourth look in a row,
        with nothing sent or pulled in between, moves the clock on to the next coming or going;
        a round of Flower's legacy server takes three.
        """
        if self._nodes.is_always_online:
            return self._nodes.ids
        with self._lock:
            looks = self._looks[threading.current_thread()] + 1
            self._looks[threading.current_thread()] = looks
            if looks >= 4 and not self._waits and self._threads.others_are_at_rest():
                self._begin_sent()
                change_s = self._nodes.next_change_s(self.clock.now())
                self._engine.pass_time_until(min(change_s, self.clock.horizon_s))
            return Online(self._nodes, self.clock.now())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; an unknown node's id is left out, as Flower's simulation does."""
        with self._lock:
            self._looks.clear()
            self._threads.join()
            self._is_calm = False
            known = [m for m in messages if m.metadata.dst_node_id in self._nodes.ids]
            ids = [self._engine.accept(message) for message in known]
            if known:
                self._sent.setdefault(threading.current_thread(), []).extend(known)
            if not self._threads.others():  # nobody else can send at this moment
                self._begin_sent()
            return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived, in order of arrival; see the class."""
        wanted = message_ids if isinstance(message_ids, Set) else set(message_ids)
        with self._lock:
            return self._pull(wanted, self.clock.horizon_s)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for the replies, at most `timeout` virtual seconds.

        What comes later counts as late; it can still be pulled.
        """
        with self._lock:
            missing = set(self.push_messages(messages))
            deadline_s = math.inf if timeout is None else self.clock.now() + timeout
            replies: list[Message] = []
            while missing:
                arrived = self._pull(missing, deadline_s)
                replies += arrived
                missing -= {m.metadata.reply_to_message_id for m in arrived}
                if not arrived:  # the deadline came first, or nothing is under way any more
                    self.clock.advance_to(deadline_s if timeout is not None else 0.0)
                    break
            self._engine.expire(missing)
            return replies

    # --- time, which one thread lets pass for all that wait -------------------------------------

    def _pull(self, wanted: Set[str], until_s: float) -> list[Message]:
        """Take what has arrived of what is wanted; let time pass, until `until_s`, for the first.

        The thread that has waited longest moves the clock, the others sleep.
        """
        self._looks.clear()
        self._is_calm = False
        wait = _Wait(wanted, until_s, self._lock)
        self._waits.append(wait)
        try:
            while not wait.is_over:
                if wait is not self._waits[0]:
                    wait.sleep()
                elif self._nobody_runs():
                    self._step()
                else:
                    wait.sleep(_LOOK_S)
        finally:
            self._waits.remove(wait)
            if self._waits:
                self._waits[0].wake()
            self._is_calm = False
        arrived = self._engine.arrived
        return [arrived.pop(i) for i in list(arrived) if i in wanted]

    def _nobody_runs(self) -> bool:
        """Whether all threads but this one are at rest: as they were, if none has been woken."""
        if not self._is_calm:
            asleep = {wait.thread for wait in self._waits if wait.is_asleep}
            self._is_calm = self._threads.others_are_at_rest(asleep)
        return self._is_calm

    def _step(self) -> None:
        """Do what is next: finish this moment, end waits, or move on to the next moment."""
        engine, now_s = self._engine, self.clock.now()
        self._begin_sent()
        if engine.next_s() <= now_s:
            engine.step()
        elif over := [wait for wait in self._waits if self._can_end(wait)]:
            for wait in over:
                wait.is_over = True
                wait.wake()
            self._is_calm = False
        else:
            due_s = min(wait.until_s for wait in self._waits)
            if engine.next_s() <= due_s:
                engine.step()
            else:
                self.clock.advance_to(due_s)

    def _can_end(self, wait: "_Wait") -> bool:
        """Whether a wait has something to return, or nothing more to wait for."""
        return (
            not wait.wanted
            or not self._engine.has_events
            or self.clock.now() >= wait.until_s
            or any(i in wait.wanted for i in self._engine.arrived)
        )

    def _begin_sent(self) -> None:
        """Begin what threads have sent at this moment: each one's in its order, they in nodes'."""
        if not self._sent:
            return
        sent, self._sent = list(self._sent.values()), {}
        if len(sent) > 1:
            sent.sort(key=lambda m: (m[0].metadata.dst_node_id, m[0].metadata.message_type))
        for message in itertools.chain.from_iterable(sent):
            self._engine.begin(message)

    def attributes(self, node_id: int) -> Mapping[str, float]:
        """Return what is known of a node; see `fedagent.nodes.geography`."""
        return self._nodes.attributes(node_id)
