"""Simulated time."""

import heapq
import math
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class VirtualClock:
    """Seconds that pass only when something is waited for."""

    is_virtual = True

    def __init__(self) -> None:
        self._now_s = 0.0
        self._wake_at_s = math.inf

    def now(self) -> float:
        """Return the virtual seconds since the simulation began."""
        return self._now_s

    @property
    def horizon_s(self) -> float:
        """The announced time: no wait goes past it."""
        return max(self._now_s, self._wake_at_s)

    def wake_at(self, time_s: float) -> None:
        """Announce that no wait may go past `time_s`."""
        self._wake_at_s = time_s

    def advance_to(self, time_s: float) -> None:
        """Move on to `time_s`; never backwards."""
        self._now_s = max(self._now_s, time_s)

    def pause(self) -> None:
        """Move on to the announced time; stay if none was announced."""
        if math.isfinite(self._wake_at_s):
            self.advance_to(self._wake_at_s)


class EventQueue(Generic[T]):
    """Events ordered by (virtual time, number), whatever order they were added in."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, T]] = []
        self._num_added = 0

    def add(self, time_s: float, number: int, event: T) -> None:
        """Schedule `event`; `number` breaks ties, and of the same number the first one added."""
        heapq.heappush(self._heap, (time_s, number, self._num_added, event))
        self._num_added += 1

    def next_s(self) -> float:
        """Return the time of the earliest event, or infinity."""
        return self._heap[0][0] if self._heap else math.inf

    def pop(self) -> tuple[float, T]:
        """Remove and return the earliest event and its time."""
        time_s, _, _, event = heapq.heappop(self._heap)
        return time_s, event

    def __iter__(self) -> Iterator[tuple[float, T]]:
        """Iterate over what is to come and its times, in the order in which it was added."""
        for time_s, _, _, event in sorted(self._heap, key=lambda entry: entry[2]):
            yield time_s, event

    def __len__(self) -> int:
        return len(self._heap)
