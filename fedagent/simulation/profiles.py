"""Fleets: how fast, how far and how reliable every node is. Described, not instantiated."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedagent.errors import require
from fedagent.nodes.geography import Geography, Links


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
    """

    seconds_per_step: float
    latency_s: float = 0.0
    download_bytes_per_s: float = math.inf
    upload_bytes_per_s: float = math.inf
    failure_rate: float = 0.0
    silence_rate: float = 0.0
    period_s: float = math.inf
    online_fraction: float = 1.0
    phase_s: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.seconds_per_step > 0,
            f"A node's seconds_per_step={self.seconds_per_step} must be positive.",
        )

    @property
    def is_always_online(self) -> bool:
        """Whether the node never leaves."""
        return self.online_fraction >= 1.0 or math.isinf(self.period_s)

    def is_online(self, now_s: float) -> bool:
        """Return whether the node is connected at `now_s`."""
        return self.is_always_online or now_s < self._leaves_s(self._cycle(now_s))

    def next_change_s(self, now_s: float) -> float:
        """Return when the node next comes or goes, strictly after `now_s`; infinity if never."""
        if self.is_always_online:
            return math.inf
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
    """How every node of a fleet fails; each node's phase is drawn uniformly over the period."""

    failure_rate: float = 0.0
    silence_rate: float = 0.0
    period_s: float = math.inf
    online_fraction: float = 1.0

    def __post_init__(self) -> None:
        for name in ("failure_rate", "silence_rate", "online_fraction"):
            require(
                0.0 <= getattr(self, name) <= 1.0,
                f"{name}={getattr(self, name)} must lie in [0, 1].",
            )
        require(self.online_fraction > 0, "online_fraction=0: no node would ever come online.")
        require(self.period_s > 0, f"period_s={self.period_s} must be positive.")


@dataclass(frozen=True, kw_only=True)
class Fleet(ABC):
    """A population of `num_nodes` devices.

    The profile of node i follows from (seed, i) alone, so that a fleet of a million costs nothing
    until a node is asked for work.

    Parameters
    ----------
    num_nodes : population, >= 1.
    seconds_per_step : scale of the drawn times: seconds of a nominal local step.
    default_steps : local steps that a job is taken to do when its message names none (key
        ``local-steps``), as for evaluation and ClientApps that count epochs.
    jitter : sigma of a lognormal factor drawn anew for every job; 0 for none.
    links, reliability : what all nodes share.
    geography : regions, if nodes are in several.
    seed : of everything drawn here.
    """

    num_nodes: int = 100
    seconds_per_step: float = 1.0
    default_steps: int = 1
    jitter: float = 0.0
    links: Links = field(default_factory=Links)
    reliability: Reliability = field(default_factory=Reliability)
    geography: Geography | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.num_nodes >= 1, f"num_nodes={self.num_nodes} must be at least 1.")
        require(
            self.seconds_per_step > 0, f"seconds_per_step={self.seconds_per_step} must be positive."
        )
        require(self.default_steps >= 1, f"default_steps={self.default_steps} must be at least 1.")
        require(self.jitter >= 0, f"jitter={self.jitter} must not be negative.")

    @abstractmethod
    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return node `index`'s time per step over the nominal one, > 0."""

    def generator(self, *key: int) -> np.random.Generator:
        """Return a fresh generator that belongs to (seed, key)."""
        return np.random.default_rng([self.seed, *key])

    def profile(self, index: int) -> NodeProfile:
        """Return the profile of node `index`, 0 <= index < num_nodes."""
        generator = self.generator(index)
        relative = self.relative_time(index, generator)
        reliability, geography = self.reliability, self.geography
        links = geography.path(index, self.links) if geography else self.links
        phase_s = (
            float(generator.uniform(0.0, reliability.period_s))
            if math.isfinite(reliability.period_s)
            else 0.0
        )
        return NodeProfile(
            seconds_per_step=self.seconds_per_step * relative,
            latency_s=links.latency_s,
            download_bytes_per_s=links.download_bytes_per_s,
            upload_bytes_per_s=links.upload_bytes_per_s,
            failure_rate=reliability.failure_rate,
            silence_rate=reliability.silence_rate,
            period_s=reliability.period_s,
            online_fraction=reliability.online_fraction,
            phase_s=phase_s,
        )

    @property
    def is_always_online(self) -> bool:
        """Whether no node ever leaves."""
        return self.profile(0).is_always_online

    def all_seconds_per_step(self) -> list[float]:
        """Return every node's seconds per step: for partitions that follow speed."""
        return [self.profile(i).seconds_per_step for i in range(self.num_nodes)]


@dataclass(frozen=True, kw_only=True)
class Equal(Fleet):
    """All devices are equally fast: the control."""

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class HalfNormal(Fleet):
    """|N(0, 1)|: most devices are quick, none is far off. Bounded below by 0.001."""

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Draw from the half-normal distribution."""
        return max(1e-3, abs(float(generator.normal())))


@dataclass(frozen=True, kw_only=True)
class Lognormal(Fleet):
    """exp(sigma N(0, 1)): a long tail of slow devices."""

    sigma: float = 1.5

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Draw from the lognormal distribution with median 1."""
        return math.exp(self.sigma * float(generator.normal()))


@dataclass(frozen=True, kw_only=True)
class Pareto(Fleet):
    """Pareto with index alpha from 1, cut at `cap`: heavy-tailed stragglers."""

    alpha: float = 1.0
    cap: float = 60.0

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Draw from the capped Pareto distribution with minimum 1."""
        return min(self.cap, 1.0 + float(generator.pareto(self.alpha)))


@dataclass(frozen=True, kw_only=True)
class TwoClass(Fleet):
    """`fast_fraction` of the devices are fast, the others `ratio` times slower (GPU and CPU)."""

    ratio: float = 25.0
    fast_fraction: float = 0.5

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return 1 or `ratio`: fast and slow nodes alternate in the chosen proportion."""
        is_fast = math.floor((index + 1) * self.fast_fraction) > math.floor(
            index * self.fast_fraction
        )
        return 1.0 if is_fast else self.ratio


@dataclass(frozen=True, kw_only=True)
class Straggler(Fleet):
    """All devices are equal but the last, which is `ratio` times slower."""

    ratio: float = 1000.0

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return `ratio` for the last node, 1 for the others."""
        return self.ratio if index == self.num_nodes - 1 else 1.0


@dataclass(frozen=True, kw_only=True)
class Scripted(Fleet):
    """Times written down by hand, seconds per step of node 0, 1, ...: for tests and real traces."""

    times: tuple[float, ...] = (1.0,)
    profiles: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Fields of `NodeProfile` to replace, by node."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.times) == self.num_nodes,
            f"Scripted fleet: {len(self.times)} times for num_nodes={self.num_nodes} nodes.",
        )

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return the written time."""
        return float(self.times[index])

    def profile(self, index: int) -> NodeProfile:
        """Return the written profile."""
        return replace(super().profile(index), **self.profiles.get(index, {}))

    @property
    def is_always_online(self) -> bool:
        """Whether no node ever leaves."""
        return all(self.profile(i).is_always_online for i in range(self.num_nodes))
