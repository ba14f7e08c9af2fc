"""When a synchronous round ends, other than by waiting for everybody.

Over-selection
    asks ceil(K s) nodes for a cohort of K and ends the round with the first K replies. Bonawitz et
    al., "Towards Federated Learning at Scale", arXiv 1902.01046, take s = 1.3; 1 asks K.
A fixed deadline
    ends the round after D seconds, as Flower's own ``timeout`` does.
An adaptive deadline
    is the q-th percentile of how long jobs have taken so far. A job that is still out counts with
    the time that it has taken until now: otherwise only the fast would be counted, and the deadline
    would fall from round to round.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fedagent.errors import Interval, check_fields

KEPT_DURATIONS = 1_000
"""How many of the newest durations an adaptive deadline looks at."""


@dataclass(frozen=True)
class Cutoff:
    """What ends a round before everybody has answered; the first that holds does.

    Parameters
    ----------
    over_selection : s >= 1, nodes asked for each that is needed; None for as many as are needed.
        It asks no more nodes than are connected.
    deadline_s : D, seconds of a round on the run's clock, > 0; None for no deadline. With a
        percentile it holds as long as no job has ended.
    deadline_percentile : q, in (0, 100], of the durations seen so far; None for `deadline_s`.
    """

    over_selection: Annotated[float | None, Interval("[1, inf)", "a cohort would be short")] = None
    deadline_s: Annotated[float | None, Interval("(0, inf)", "no reply would be in time")] = None
    deadline_percentile: Annotated[float | None, Interval("(0, 100]")] = None

    def __post_init__(self) -> None:
        check_fields(self)


class Durations:
    """How long jobs took, and the deadline that follows.

    Parameters
    ----------
    cutoff : which deadline.
    """

    def __init__(self, cutoff: Cutoff) -> None:
        self._cutoff = cutoff
        self._seen_s: deque[float] = deque(maxlen=KEPT_DURATIONS)

    def observe(self, duration_s: float) -> None:
        """Learn how long a job took, in time or late."""
        self._seen_s.append(duration_s)

    def deadline_s(self, under_way_s: Iterable[float], timeout_s: float) -> float:
        """Return how long the next round may last, at most `timeout_s`.

        Parameters
        ----------
        under_way_s : how long jobs of earlier rounds that are still out have taken until now.
        timeout_s : Flower's own limit of a round.
        """
        cutoff = self._cutoff
        percentile, fixed_s = cutoff.deadline_percentile, cutoff.deadline_s
        if percentile is not None and self._seen_s:
            fixed_s = percentile_of([*self._seen_s, *under_way_s], percentile)
        return timeout_s if fixed_s is None else min(fixed_s, timeout_s)


def percentile_of(values: Sequence[float], percentile: float) -> float:
    """Return the smallest value that at least `percentile` % of `values` do not exceed."""
    rank = math.ceil(len(values) * percentile / 100)
    return sorted(values)[max(0, rank - 1)]
