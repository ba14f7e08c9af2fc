"""How long a node may take, learned from how long nodes have taken.

    deadline = min(limit, max(floor, factor x max(p95, own)))

p95 : the 95th percentile over nodes of what each took last, once 20 are known; every node counts
      once, so that the many replies of fast nodes do not make slow ones late.
own : the longest of the node's last five. A node that answers late is observed too: next time its
      deadline is long enough.

A device that vanishes without a word so holds its slot for minutes and not for the whole limit.

Remembered are the nodes that are there and, of those that left, the ones heard of last: as many as
are there, at least 20. A node that comes back soon finds its deadline, the percentile does not
hang on a handful, and devices that come under a new id each time take no memory for good.

Pure: durations are seconds on whatever clock the caller has.
"""

import math
from collections import deque
from typing import Protocol

import numpy as np

_MIN_NODES = 20  # fewer say nothing about the slow ones
_REMEMBERED = 5


class Present(Protocol):
    """The nodes that are there: how many, and whether one is; a `Membership` says so."""

    def __len__(self) -> int: ...

    def __contains__(self, node_id: object, /) -> bool: ...


class Deadlines:
    """Learns durations and says how long a node may take.

    Parameters
    ----------
    limit_s : longest deadline, > 0; that of all nodes while nothing is known.
    factor : deadline over the usual duration, >= 1; infinity leaves it at `limit_s`.
    floor_s : shortest deadline, > 0: a restart of the SuperLink delays every node.
    """

    def __init__(self, limit_s: float, factor: float = 3.0, floor_s: float = 60.0) -> None:
        self._limit_s, self._factor, self._floor_s = limit_s, factor, floor_s
        self._durations: dict[int, deque[float]] = {}  # the node heard of last comes last
        self._p95_s = math.nan
        self._news = 0

    def observe(self, node_id: int, duration_s: float) -> None:
        """Learn that a node took so long."""
        if math.isfinite(self._factor):
            own = self._durations.pop(node_id, deque(maxlen=_REMEMBERED))
            self._durations[node_id] = own
            own.append(duration_s)
            self._news += 1

    def forget_departed(self, present: Present) -> None:
        """Forget nodes that left, as said above; to be called when the list of nodes is renewed.

        It looks at all nodes only once too many are remembered: O(1) per node on average.
        """
        most = max(_MIN_NODES, len(present))
        if len(self._durations) <= 2 * most:
            return
        departed = [node_id for node_id in self._durations if node_id not in present]
        for node_id in departed[: max(0, len(departed) - most)]:
            del self._durations[node_id]

    @property
    def num_nodes(self) -> int:
        """How many nodes are remembered."""
        return len(self._durations)

    def for_node(self, node_id: int) -> float:
        """Return how many seconds a node may take."""
        own, all_s = max(self._durations.get(node_id, ()), default=math.nan), self._p95()
        usual = own if math.isnan(all_s) or own > all_s else all_s  # of what is known
        if math.isnan(usual):
            return self._limit_s
        return min(self._limit_s, max(self._floor_s, self._factor * usual))

    def _p95(self) -> float:
        # A percentile takes all nodes: again only when a tenth of them have news.
        if len(self._durations) >= _MIN_NODES and self._news * 10 >= len(self._durations):
            last = [own[-1] for own in self._durations.values()]
            self._p95_s, self._news = float(np.percentile(last, 95)), 0
        return self._p95_s
