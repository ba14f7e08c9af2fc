"""What a grid may bring along: a clock, and knowledge of its nodes.

Time always comes from a clock, never from the operating system directly.
"""

import math
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, cast, runtime_checkable

from flwr.serverapp import Grid

REMOTE = "is-remote"
"""1 if the node is in another region than the proxy it talks to."""


@runtime_checkable
class Clock(Protocol):
    """Seconds since some origin, and a way to let them pass."""

    is_virtual: bool

    def now(self) -> float:
        """Return the seconds since the clock's origin."""

    def wake_at(self, time_s: float) -> None:
        """Announce that no wait may go past `time_s`: something is due then."""

    def pause(self) -> None:
        """Let time pass, at most until the announced time."""


class WallClock:
    """Real, monotonic seconds.

    Parameters
    ----------
    poll_interval_s : longest pause between two looks at a grid.
    """

    is_virtual = False

    def __init__(self, poll_interval_s: float = 0.05) -> None:
        self._poll_interval_s = poll_interval_s
        self._wake_at_s = math.inf

    def now(self) -> float:
        """Return the seconds since the clock's origin."""
        return time.monotonic()

    def wake_at(self, time_s: float) -> None:
        """Announce that no wait may go past `time_s`."""
        self._wake_at_s = time_s

    def pause(self) -> None:
        """Sleep for the poll interval, or less if something is due before."""
        time.sleep(max(0.0, min(self._poll_interval_s, self._wake_at_s - self.now())))


def clock_of(grid: Grid) -> Clock:
    """Return the grid's own clock if it brings one (a simulation does), else a wall clock."""
    clock = getattr(grid, "clock", None)
    return clock if isinstance(clock, Clock) else WallClock()


@runtime_checkable
class KnowsNodes(Protocol):
    """A grid that knows its nodes: a simulation does."""

    def attributes(self, node_id: int) -> Mapping[str, float]:
        """Return what is known of a node, name -> number; see `fedagent.nodes.geography`."""


@runtime_checkable
class RemembersRun(Protocol):
    """A grid that keeps what a run says of itself: a simulation does.

    Attributes
    ----------
    run_statistics : of the last run on it, in the run's own words; None as long as there was none.
    """

    run_statistics: Any


def tell_statistics(grid: Grid, statistics: Any) -> None:
    """Leave a run's statistics, which are live, with a grid that remembers them."""
    if isinstance(grid, RemembersRun):
        grid.run_statistics = statistics


def attributes_of(grid: Grid, node_id: int) -> Mapping[str, float]:
    """Return what the grid knows of a node; nothing, if it is one of Flower's own."""
    return cast(KnowsNodes, grid).attributes(node_id) if _knows_nodes(type(grid)) else {}


@lru_cache  # of a protocol Python compares every method, with every question
def _knows_nodes(kind: type) -> bool:
    return issubclass(kind, KnowsNodes)
