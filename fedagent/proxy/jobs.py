"""What every node is doing: one table of train jobs, by token."""

from collections import Counter
from dataclasses import dataclass

from fedagent.proxy.ledger import Version
from fedagent.update import Dispatch, Group


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A train job whose message has been built and has not left.

    Attributes
    ----------
    node_id : its node.
    base : the model of its own that the node gets; None for the published one.
    group : the group it belongs to, if any.
    """

    node_id: int
    base: Version | None = None
    group: Group | None = None


class Jobs:
    """Jobs that were handed out and have not ended, and updates that no model holds yet.

    A node does its jobs one after the other. Of an update no model holds anything while its job has
    not ended, and after it was received until the next version comes out. One that failed, was
    refused or expired will never be in any.
    """

    def __init__(self) -> None:
        self._built: dict[str, Job] = {}
        self._tokens: dict[int, dict[str, None]] = {}  # of every job, by node, oldest first
        self._num_sent: Counter[int] = Counter()
        self._received: dict[int, list[tuple[str, int]]] = {}
        self._free_s: dict[int, float] = {}
        self._with_room: dict[int, None] = {}

    # --- a job's life -------------------------------------------------------------------------

    def build(
        self, node_id: int, token: str, base: Version | None, group: Group | None = None
    ) -> None:
        """Note the message that hands a job out, before it is sent."""
        self._built[token] = Job(node_id, base, group)
        self._tokens.setdefault(node_id, {})[token] = None

    def send(self, node_id: int, token: str) -> Job | None:
        """Note that a job leaves; None if its message is not one that was built for the node.

        That is one which the user's strategy has made itself.
        """
        self._num_sent[node_id] += 1
        job = self._built.get(token)
        if job is None or job.node_id != node_id:
            self._tokens.setdefault(node_id, {})[token] = None
            return None
        return self._built.pop(token)

    def drop_unsent(self) -> list[Job]:
        """Forget the jobs whose messages were built but never sent; return them."""
        dropped, self._built = self._built, {}
        for token, job in dropped.items():
            self._forget(job.node_id, token)
        return list(dropped.values())

    def receive(self, dispatch: Dispatch, version: int) -> None:
        """Note that the rule has an update, `version` being the newest its node could be given."""
        self._received.setdefault(dispatch.node_id, []).append((dispatch.token, version))

    def end(self, dispatch: Dispatch, now_s: float, succeeded: bool) -> None:
        """Forget a job that was sent; a node that did it well may get another in its place."""
        node_id = dispatch.node_id
        self._forget(node_id, dispatch.token)
        self._num_sent[node_id] -= 1
        if self._num_sent[node_id] == 0:
            del self._num_sent[node_id]
            self._free_s.pop(node_id, None)
            self._with_room.pop(node_id, None)
            return
        self._free_s[node_id] = now_s
        if succeeded:
            self._with_room[node_id] = None

    def _forget(self, node_id: int, token: str) -> None:
        tokens = self._tokens.get(node_id, {})
        tokens.pop(token, None)  # a strategy may have sent two messages with one token
        if not tokens:
            self._tokens.pop(node_id, None)

    # --- what others ask ----------------------------------------------------------------------

    @property
    def num_nodes(self) -> int:
        """Nodes at work."""
        return len(self._num_sent)

    @property
    def has_room(self) -> bool:
        """Whether a node at work has done a job since its queue was last looked at."""
        return bool(self._with_room)

    def take_with_room(self) -> list[tuple[int, int]]:
        """Return, once, the nodes at work that did a job, and how many each still has."""
        nodes = [(node_id, self._num_sent[node_id]) for node_id in self._with_room]
        self._with_room.clear()
        return nodes

    def begun_s(self, dispatch: Dispatch) -> float:
        """Return when the node could begin a job: when it was sent, or done with the one before."""
        return max(dispatch.sent_at_s, self._free_s.get(dispatch.node_id, 0.0))

    def tokens(self, node_id: int) -> list[str]:
        """Return the tokens of a node's jobs that have not ended, oldest first."""
        return list(self._tokens.get(node_id, {}))

    def unapplied(self, node_id: int, newest: int) -> list[str]:
        """Return the tokens whose updates version `newest` of the node's model does not hold."""
        waiting = [(t, v) for t, v in self._received.pop(node_id, []) if v >= newest]
        if waiting:
            self._received[node_id] = waiting
        return [*(token for token, _ in waiting), *self.tokens(node_id)]
