"""How many nodes are at work at once, found from how stale updates arrive.

Little's law ties the two: with c nodes at work and K updates per version, an update meets c / K
newer versions on average, whatever the nodes' speeds. More nodes bring more updates per second,
each of which is worth less. Where speeds differ, few slow nodes carry most of the mean, so the
*median* tells what a typical update is worth:

    m = median staleness of c updates that were handed out under the present c
    c <- c (s + 1) / (m + 1),  by at most a factor of 2

between max(cohort, s K) and all nodes, with K as it was so far. Neither nodes nor rules need to
tell anything. "Optimizing Asynchronous Federated Learning" (arXiv 2502.08206) chooses c with the
same law, by minimising a bound that needs constants of the problem; here s stands for all of them.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fedagent.errors import Interval, check_fields

_MOST = 2.0  # the largest factor between two values of c
_ANOTHER = 0.1  # from this relative change on, updates under way tell nothing of the new c


@dataclass(frozen=True)
class AutoConcurrency:
    """As many nodes at work as bring updates of a wanted staleness.

    Parameters
    ----------
    staleness : s, wanted median staleness of the updates that arrive, in versions, >= 0.
    """

    staleness: Annotated[float, Interval("[0, inf)", "no update is younger than its base")] = 4.0

    def __post_init__(self) -> None:
        check_fields(self)


class ConcurrencyFinder:
    """What an `AutoConcurrency` has found in one run; observing is O(1), and O(c) every c updates.

    Parameters
    ----------
    wanted : how stale updates may be.
    """

    def __init__(self, wanted: AutoConcurrency) -> None:
        self._wanted = wanted
        self._width = 0.0
        self._num_before = 0  # updates under way that were handed out under another c
        self._seen: list[int] = []

    def observe(self, staleness: int) -> None:
        """Learn from an update that came, `staleness` versions after its base."""
        if self._num_before > 0:
            self._num_before -= 1
        else:
            self._seen.append(staleness)

    def limit(self, cohort: int, num_nodes: int, updates_per_version: float) -> int:
        """Return c: how many of `num_nodes` connected nodes may be at work, at least `cohort`.

        Parameters
        ----------
        updates_per_version : K as it was so far; 0 before the first version.
        """
        wanted, width = self._wanted.staleness, self._width
        if len(self._seen) >= width > 0:
            ratio = (wanted + 1.0) / (statistics.median_grouped(self._seen) + 1.0)
            width *= min(max(ratio, 1.0 / _MOST), _MOST)
            self._seen.clear()
        width = min(max(width, cohort, wanted * updates_per_version), num_nodes)
        if abs(width - self._width) > _ANOTHER * self._width:
            self._seen.clear()
            self._num_before = int(self._width)
        self._width = width
        return int(self._width)

    def state_dict(self) -> dict[str, Any]:
        """Return what has been found."""
        return {"width": self._width, "before": self._num_before, "seen": list(self._seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._width, self._num_before = float(state["width"]), int(state["before"])
        self._seen = list(state["seen"])
