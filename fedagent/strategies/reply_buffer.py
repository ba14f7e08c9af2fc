"""The replies that wait for a Flower strategy's aggregation, and what became of the others."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from fedagent.formatting import place_of
from fedagent.rules.one_per_node import PerNode
from fedagent.strategies.flower_reply import FlowerReply

logger = logging.getLogger("flwr.fedagent")

_MOST_FAILURES_IN_A_ROW = 10


class ReplyBuffer:
    """A list of replies; with `per_node` it holds one of each node at most.

    Parameters
    ----------
    per_node : which of a node's replies that is; None for all.

    Attributes
    ----------
    lost : replies that no version will ever hold, by reason.
    failures_in_a_row : buffers given up since one was aggregated.
    """

    def __init__(self, per_node: PerNode | None = None) -> None:
        self.per_node = per_node
        self.lost: Counter[str] = Counter()
        self._replies: list[FlowerReply] = []
        self._counts: Counter[int] = Counter()
        self._withdrawn: dict[int, float] = {}
        self.failures_in_a_row = 0
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self._replies)

    def __iter__(self) -> Iterator[FlowerReply]:
        return iter(self._replies)

    def add(self, reply: FlowerReply) -> None:
        """Take a reply in; an earlier one of the same node may have to go."""
        if self.per_node is not None:
            self._counts[reply.node_id] += 1
            self._replace(reply)
        self._replies.append(reply)

    def _replace(self, reply: FlowerReply) -> None:
        earlier = next((r for r in self._replies if r.node_id == reply.node_id), None)
        if earlier is None:
            return
        self._replies.remove(earlier)
        self.lost["superseded"] += 1
        node_id = reply.node_id
        self._withdrawn[node_id] = self._withdrawn.get(node_id, 0.0) + earlier.weight
        if self.per_node == "mean":
            reply.delta.lerp_(earlier.delta, 1.0 - 1.0 / self._counts[node_id])

    def clear(self) -> None:
        """Empty the buffer: its replies are part of a version."""
        self._replies.clear()
        self._counts.clear()

    def lose(self, reason: str) -> None:
        """Count what is in the buffer as lost, and empty it."""
        if self._replies:
            self.lost[reason] += len(self._replies)
            self.clear()

    def give_up(self, strategy: str, error: Exception) -> None:
        """Lose what is in the buffer: say so once for each kind of error.

        Raises
        ------
        Exception
            `error`, if it is all that there is: ten in a row.
        """
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            raise error
        kind = f"{type(error).__name__} at {place_of(error)}"
        logger.log(
            logging.DEBUG if kind in self._reported else logging.WARNING,
            "%s.aggregate_train raised %s (%s), so its %d updates are lost and the model stays as "
            "it is; more of this kind are only counted, %d in a row end the run",
            strategy,
            kind,
            error,
            len(self),
            _MOST_FAILURES_IN_A_ROW,
        )
        self._reported.add(kind)
        self.lose("strategy-raised")

    def take_withdrawn(self) -> Mapping[int, float]:
        """Return, once, the weight of replies that others have replaced, by node."""
        taken, self._withdrawn = self._withdrawn, {}
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Return the replies, and how many are lost."""
        return {
            "buffer": [reply.state_dict() for reply in self._replies],
            "counts": {str(node_id): count for node_id, count in self._counts.items()},
            "lost": dict(self.lost),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._replies = [FlowerReply.from_state(fields) for fields in state["buffer"]]
        self._counts = Counter({int(node): int(n) for node, n in state["counts"].items()})
        self.lost, self._withdrawn = Counter(state["lost"]), {}
