"""How failing nodes are kept from a tight loop: longer and longer waits, and probes after a storm.

Pure: the caller passes the time, in seconds on the run's clock.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from fedagent.errors import Interval, check_fields, require


@dataclass(frozen=True)
class Backoff:
    """Exponential waiting: the n-th failure in a row waits min(cap_s, base_s 2^(n-1)) seconds.

    Parameters
    ----------
    base_s : seconds after the first failure, > 0.
    cap_s : longest wait in seconds, >= base_s.
    storm : failures in a row over all nodes, >= 1, after which only one probe at a time is sent.
    """

    base_s: Annotated[float, Interval("(0, inf)")] = 1.0
    cap_s: Annotated[float, Interval("(0, inf)")] = 300.0
    storm: Annotated[int, Interval("[1, inf)")] = 20

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.base_s <= self.cap_s,
            f"Backoff: base_s={self.base_s} must not be longer than cap_s={self.cap_s}.",
        )

    def wait_s(self, failures: int) -> float:
        """Return the wait after the given number of failures in a row."""
        return min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 60))


class Breaker:
    """Opens after a storm of failures; open, it lets one probe through at a time."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._probe_at_s = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether only probes may be sent."""
        return self._failures >= self._backoff.storm

    @property
    def probe_at_s(self) -> float:
        """When the next probe may be sent; in the past when closed."""
        return self._probe_at_s if self.is_open else -math.inf

    def record(self, succeeded: bool, now_s: float) -> None:
        """Count one outcome."""
        self._failures = 0 if succeeded else self._failures + 1
        if self.is_open:
            self._probe_at_s = now_s + self._backoff.wait_s(
                self._failures - self._backoff.storm + 1
            )

    def limit(self, concurrency: int, now_s: float) -> int:
        """Return how many nodes may be at work now."""
        if not self.is_open:
            return concurrency
        return min(1, concurrency) if now_s >= self._probe_at_s else 0
