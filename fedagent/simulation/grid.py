"""A Flower grid over a simulated fleet: real work, virtual time."""

import math
from collections.abc import Iterable, Mapping, Set

from flwr.app import Message, RecordDict, UserConfig
from flwr.serverapp import Grid

from fedagent._flower import Run
from fedagent.simulation.engine import Engine
from fedagent.simulation.fleets import Fleet
from fedagent.simulation.nodes import Online
from fedagent.simulation.workers.base import Executor
from fedagent.statistics import Statistics


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

    Attributes
    ----------
    clock : the virtual clock.
    statistics : what the grid has seen, whatever strategy drives it.
    run_statistics : what an asynchronous strategy says of its run; None if there was none.
    """

    def __init__(
        self, fleet: Fleet, executor: Executor, run: Run, run_config: UserConfig, seed: int = 0
    ) -> None:
        self._engine = Engine(fleet, executor, run, run_config, seed)
        self._nodes, self.clock = self._engine.nodes, self._engine.clock
        self.statistics = self._engine.statistics
        self.run_statistics: Statistics | None = None
        self._looks = 0

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

        Flower's strategies wait for nodes by looking again and again. The third look in a row, with
        nothing sent or pulled in between, moves the clock on to the next coming or going.
        """
        if self._nodes.is_always_online:
            return self._nodes.ids
        self._looks += 1
        if self._looks >= 3:
            change_s = self._nodes.next_change_s(self.clock.now())
            self._engine.pass_time_until(min(change_s, self.clock.horizon_s))
        return Online(self._nodes, self.clock.now())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; an unknown node's id is left out, as Flower's simulation does."""
        self._looks = 0
        known = (m for m in messages if m.metadata.dst_node_id in self._nodes.ids)
        return [self._engine.begin(message) for message in known]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived, in order of arrival; see the class."""
        self._looks = 0
        wanted = message_ids if isinstance(message_ids, Set) else set(message_ids)
        arrived = self._engine.arrived
        while wanted and not any(i in wanted for i in arrived) and self._engine.has_events:
            if self._engine.next_s() > self.clock.horizon_s:
                self.clock.advance_to(self.clock.horizon_s)
                break
            self._engine.step()
        self._engine.pass_time_until(self.clock.now())
        return [arrived.pop(i) for i in list(arrived) if i in wanted]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and wait for the replies, at most `timeout` virtual seconds."""
        missing = set(self.push_messages(messages))
        deadline_s = math.inf if timeout is None else self.clock.now() + timeout
        self.clock.wake_at(deadline_s)
        replies: list[Message] = []
        while missing:
            arrived = list(self.pull_messages(missing))
            replies += arrived
            missing -= {m.metadata.reply_to_message_id for m in arrived}
            if not arrived:  # the deadline came first, or nothing is under way any more
                self.clock.pause()
                break
        self.clock.wake_at(math.inf)
        return replies

    def attributes(self, node_id: int) -> Mapping[str, float]:
        """Return what is known of a node; see `fedagent.nodes.geography`."""
        return self._nodes.attributes(node_id)
