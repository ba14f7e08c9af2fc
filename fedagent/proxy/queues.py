"""Who is at work with how many jobs. Pure: the caller passes the time."""

from collections import Counter

from fedagent.update import Dispatch


class Queues:
    """Train jobs in flight, by node. A node does its jobs one after the other."""

    def __init__(self) -> None:
        self._jobs: Counter[int] = Counter()
        self._free_s: dict[int, float] = {}
        self._with_room: dict[int, None] = {}

    @property
    def num_nodes(self) -> int:
        """Nodes at work."""
        return len(self._jobs)

    @property
    def has_room(self) -> bool:
        """Whether a node at work has done a job since its queue was last looked at."""
        return bool(self._with_room)

    def add(self, dispatch: Dispatch) -> None:
        """Count a job that was handed out."""
        self._jobs[dispatch.node_id] += 1

    def begun_s(self, dispatch: Dispatch) -> float:
        """Return when the node could begin a job: when it was sent, or done with the one before."""
        return max(dispatch.sent_at_s, self._free_s.get(dispatch.node_id, 0.0))

    def settle(self, dispatch: Dispatch, now_s: float, succeeded: bool) -> None:
        """Count the end of a job."""
        node_id = dispatch.node_id
        self._jobs[node_id] -= 1
        if self._jobs[node_id] == 0:
            del self._jobs[node_id]
            self._free_s.pop(node_id, None)
            self._with_room.pop(node_id, None)
            return
        self._free_s[node_id] = now_s
        if succeeded:
            self._with_room[node_id] = None

    def take_with_room(self) -> list[tuple[int, int]]:
        """Return, once, the nodes at work that did a job, and how many each still has."""
        nodes = [(node_id, self._jobs[node_id]) for node_id in self._with_room]
        self._with_room.clear()
        return nodes
