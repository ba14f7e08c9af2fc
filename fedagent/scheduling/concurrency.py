"""How many nodes are at work at once, found from how long jobs take.

Little's law ties the two: with c nodes at work and K updates per version, an update meets c / K
newer versions on average, whatever the nodes' speeds. More nodes bring more updates per second,
each of which is worth less. Where speeds differ, few slow jobs carry most of the mean, so the
*median* tells what a typical update is worth. Jobs of duration d meet d / mean(d) as many versions,
and the typical one meets s of them with

    c = s K mean(d) / median(d)

nodes at work, between max(cohort, s K) and all. The mean is over the newest jobs and over those
under way, as far as they are: slow ones are known of before they end. Neither nodes nor rules need
to tell anything. "Optimizing Asynchronous Federated Learning" (arXiv 2502.08206) chooses c with the
same law, by minimising a bound that needs constants of the problem; here s stands for all of them.
"""

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from fedagent.errors import Interval, check_fields

_WINDOW = 200  # of the newest jobs
_EVERY = 10  # jobs, and a quarter of c if that is more, from one look at them to the next


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
    """What an `AutoConcurrency` has found in one run; a look is O(c), every c / 4 jobs.

    Parameters
    ----------
    wanted : how stale updates may be.
    """

    def __init__(self, wanted: AutoConcurrency) -> None:
        self._wanted = wanted
        self._durations_s: deque[float] = deque(maxlen=_WINDOW)
        self._num_news = 0
        self._spread = 1.0  # mean(d) / median(d)

    def observe(self, duration_s: float) -> None:
        """Learn from a job that was done."""
        self._durations_s.append(duration_s)
        self._num_news += 1

    def is_due(self, num_at_work: int) -> bool:
        """Whether enough jobs were done since the last look."""
        return self._num_news >= max(_EVERY, num_at_work / 4)

    def look(self, under_way_s: Iterable[float]) -> None:
        """Compare the mean with the median.

        Parameters
        ----------
        under_way_s : how long the jobs that are under way have been so far.
        """
        self._num_news = 0
        median_s = statistics.median(self._durations_s)
        if median_s > 0.0:
            mean_s = statistics.fmean((*self._durations_s, *under_way_s))
            self._spread = max(1.0, mean_s / median_s)

    def limit(self, cohort: int, num_nodes: int, updates_per_version: float) -> int:
        """Return c: how many of `num_nodes` connected nodes may be at work, at least `cohort`.

        Parameters
        ----------
        updates_per_version : K as it was so far; 0 before the first version.
        """
        wanted = self._wanted.staleness * updates_per_version * self._spread
        return min(max(cohort, int(wanted)), num_nodes)
