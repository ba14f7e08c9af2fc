"""The clock of a run."""

import math
import time
from typing import ClassVar

from flwr.serverapp import Grid

from fedagent.grids import clock_of
from fedagent.statistics import Statistics


class RunClock:
    """A grid's clock, in seconds since the run began.

    Parameters
    ----------
    grid : whose clock it is.
    statistics : whose ``now_s`` and ``wall_s`` it sets.
    """

    UNSAVED: ClassVar = ("_wall_start_s",)

    def __init__(self, grid: Grid, statistics: Statistics) -> None:
        self._clock, self._statistics = clock_of(grid), statistics
        self._start_s, self._wall_start_s = self._clock.now(), time.monotonic()
        self._due_s = math.inf
        statistics.is_virtual = self._clock.is_virtual

    def after_restore(self) -> None:
        """Go on counting real seconds; those in which nothing ran do not count."""
        self._wall_start_s = time.monotonic() - self._statistics.wall_s
        if not self._statistics.is_virtual:
            self.go_on(self._statistics.now_s)

    def go_on(self, now_s: float) -> None:
        """Let it be `now_s`."""
        self._start_s, self._statistics.now_s = self._clock.now() - now_s, now_s

    def tick(self) -> None:
        """Read the clock."""
        now = self._clock.now()
        self._statistics.now_s = now - self._start_s
        if now >= self._start_s + self._due_s:
            # What is due is due, although (start + due) - start may round to just below due.
            self._statistics.now_s = max(self._statistics.now_s, self._due_s)
        self._statistics.wall_s = time.monotonic() - self._wall_start_s

    def announce(self, due_s: float) -> None:
        """Say when something is due: no wait may go past it."""
        self._due_s = due_s
        self._clock.wake_at(self._start_s + due_s)

    def pause(self) -> None:
        """Let time pass, at most until what was announced."""
        self._clock.pause()
