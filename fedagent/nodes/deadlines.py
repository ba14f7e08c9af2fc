"""How long a node may take, learned from how long nodes have taken.

    deadline = min(limit, max(floor, factor x max(p95, own)))

p95 : the 95th percentile over nodes of what each took last, once 20 are known; every node counts
      once, so that the many replies of fast nodes do not make slow ones late.
own : the longest of the node's last five. A node that answers late is observed too: next time its
      deadline is long enough.

A device that vanishes without a word so holds its slot for minutes and not for the whole limit.
Pure: durations are seconds on whatever clock the caller has.
"""

import math
from collections import deque

import numpy as np

_MIN_NODES = 20  # fewer say nothing about the slow ones
_REMEMBERED = 5


class Deadlines:
    """Learns durations and says how long a node may take.

    Parameters
    ----------
    limit_s : no node may take longer, > 0; all may while nothing is known.
    factor : >= 1; infinity leaves it at `limit_s`.
    floor_s : no deadline is shorter, > 0: a restart of the SuperLink delays everybody.
    """

    def __init__(self, limit_s: float, factor: float = 3.0, floor_s: float = 60.0) -> None:
        self._limit_s, self._factor, self._floor_s = limit_s, factor, floor_s
        self._durations: dict[int, deque[float]] = {}
        self._p95_s = math.nan
        self._news = 0

    def observe(self, node_id: int, duration_s: float) -> None:
        """Learn that a node took so long."""
        if math.isfinite(self._factor):
            own = self._durations.setdefault(node_id, deque(maxlen=_REMEMBERED))
            own.append(duration_s)
            self._news += 1

    def for_node(self, node_id: int) -> float:
        """Return how many seconds a node may take."""
        own = max(self._durations.get(node_id, ()), default=math.nan)
        usual = np.fmax(own, self._p95())  # of what is known
        if math.isnan(usual):
            return self._limit_s
        return min(self._limit_s, max(self._floor_s, self._factor * float(usual)))

    def _p95(self) -> float:
        # A percentile takes all nodes: again only when a tenth of them have news.
        if len(self._durations) >= _MIN_NODES and self._news * 10 >= len(self._durations):
            last = [own[-1] for own in self._durations.values()]
            self._p95_s, self._news = float(np.percentile(last, 95)), 0
        return self._p95_s
