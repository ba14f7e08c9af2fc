"""One simulated device: how fast, how far, how reliable it is, and when it is there."""

import math
from dataclasses import dataclass
from typing import Annotated

from fedagent import keys
from fedagent.errors import Interval, check_fields
from fedagent.grids import REMOTE
from fedagent.nodes.courses import Course

Share = Annotated[float, Interval("[0, 1]")]
Positive = Annotated[float, Interval("(0, inf)")]
NotNegative = Annotated[float, Interval("[0, inf)")]
PositiveOrInfinite = Annotated[float, Interval("(0, inf]")]
SomeShare = Annotated[float, Interval("(0, 1]", "at 0 no node would ever come online")]


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """One simulated device.

    A job takes ``latency + download + steps * seconds_per_step + upload`` virtual seconds.

    Attributes
    ----------
    seconds_per_step : of one local step, > 0.
    latency_s : of a job's messages, there and back together.
    download_bytes_per_s, upload_bytes_per_s : link speed; infinite by default.
    failure_rate : chance in [0, 1] that a job dies midway and its node reports an error.
    silence_rate : chance in [0, 1] that a job's reply never comes.
    period_s, online_fraction, phase_s : the node is online while
        ``(t + phase_s) mod period_s < online_fraction * period_s``.
    downloads, uploads : bytes per second over time, in place of the two constants; None for these.
    presence : above 0 while the node is online, in place of the windows; None for these.
    region : its number; None where there is no geography.
    is_remote : whether the node is in another region than the proxy it talks to.
    """

    seconds_per_step: Positive
    latency_s: NotNegative = 0.0
    download_bytes_per_s: PositiveOrInfinite = math.inf
    upload_bytes_per_s: PositiveOrInfinite = math.inf
    failure_rate: Share = 0.0
    silence_rate: Share = 0.0
    period_s: PositiveOrInfinite = math.inf
    online_fraction: SomeShare = 1.0
    phase_s: NotNegative = 0.0
    downloads: Course | None = None
    uploads: Course | None = None
    presence: Course | None = None
    region: int | None = None
    is_remote: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def attributes(self, partition_id: int) -> dict[str, float]:
        """Return what is known of a node of this profile; see `fedagent.nodes.geography`."""
        known: dict[str, float] = {
            keys.PARTITION_ID: partition_id,
            "latency-s": self.latency_s,
            "seconds-per-step": self.seconds_per_step,
        }
        if self.region is not None:
            known |= {"region": self.region, REMOTE: self.is_remote}
        return known

    def downloaded_s(self, begin_s: float, num_bytes: int) -> float:
        """Return when a download of `num_bytes` is over that begins at `begin_s`, in seconds."""
        if self.downloads is not None:
            return self.downloads.reached_s(begin_s, num_bytes)
        return begin_s + num_bytes / self.download_bytes_per_s

    def uploaded_s(self, begin_s: float, num_bytes: int) -> float:
        """Return when an upload of `num_bytes` is over that begins at `begin_s`, in seconds."""
        if self.uploads is not None:
            return self.uploads.reached_s(begin_s, num_bytes)
        return begin_s + num_bytes / self.upload_bytes_per_s

    @property
    def is_always_online(self) -> bool:
        """Whether the node never leaves."""
        if self.presence is not None:
            return self.presence.is_constant
        return self.online_fraction >= 1.0 or math.isinf(self.period_s)

    def is_online(self, now_s: float) -> bool:
        """Return whether the node is connected at `now_s`."""
        if self.presence is not None:
            return self.presence.at(now_s) > 0.0
        return self.is_always_online or now_s < self._leaves_s(self._cycle(now_s))

    def next_change_s(self, now_s: float) -> float:
        """Return when the node next comes or goes, strictly after `now_s`; infinity if never."""
        if self.is_always_online:
            return math.inf
        if self.presence is not None:
            return self.presence.next_change_s(now_s)
        cycle = self._cycle(now_s)
        leaves_s = self._leaves_s(cycle)
        return leaves_s if now_s < leaves_s else self._comes_s(cycle + 1)

    def _comes_s(self, cycle: int) -> float:
        return cycle * self.period_s - self.phase_s

    def _leaves_s(self, cycle: int) -> float:
        return (cycle + self.online_fraction) * self.period_s - self.phase_s

    def _cycle(self, now_s: float) -> int:
        # The times at which cycles begin decide, not the rounding of a division: at the very
        # moment that `next_change_s` names, `is_online` has changed.
        cycle = math.floor((now_s + self.phase_s) / self.period_s)
        return cycle + (now_s >= self._comes_s(cycle + 1)) - (now_s < self._comes_s(cycle))


@dataclass(frozen=True)
class Reliability:
    """How every node of a fleet fails; each node's phase is drawn uniformly over the period.

    Attributes
    ----------
    failure_rate, silence_rate, period_s, online_fraction : as in `NodeProfile`.
    """

    failure_rate: Share = 0.0
    silence_rate: Share = 0.0
    period_s: PositiveOrInfinite = math.inf
    online_fraction: SomeShare = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
