"""Fleets: how fast, how far and how reliable every node is. Described, not instantiated."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import numpy as np

from fedagent.errors import Interval, check_fields, require
from fedagent.nodes.geography import Geography, Links
from fedagent.simulation.profiles import (
    NodeProfile,
    Positive,
    Reliability,
    Share,
)

Count = Annotated[int, Interval("[1, inf)")]
Sigma = Annotated[float, Interval("[0, 20]", "exp(sigma N(0, 1)) would be no number of seconds")]

_FIRST_NODE_ID = 1001  # Flower's own ids are random; 0 and 1 mean driver and SuperLink


@dataclass(frozen=True, kw_only=True)
class Fleet(ABC):
    """A population of `num_nodes` devices.

    The profile of node i follows from (seed, i) alone, so that a fleet of a million costs nothing
    until a node is asked for work.

    Parameters
    ----------
    num_nodes : population, >= 1.
    seconds_per_step : scale of the drawn times, > 0: seconds of a nominal local step.
    default_steps : local steps, >= 1, of a job whose message names none (key ``local-steps``), as
        for evaluation and ClientApps that count epochs.
    jitter : spread s, in [0, 20], of a factor drawn anew for every job; 0 for none.
    jitter_kind : how that factor is distributed: "lognormal", exp(s N(0, 1)); "half_normal",
        s |N(0, 1)|, at least 0.001, so that s = 1 is the half-normal distribution itself;
        "shifted_exponential", 1 + s Exp(1).
    links : what every node has, or what every node draws its own from, as `PhoneLinks`.
    reliability : what all nodes share.
    geography : regions, if nodes are in several.
    seed : of everything drawn here, >= 0.

    Raises
    ------
    ConfigurationError
        If a number cannot work: NaN never does.
    """

    num_nodes: Count = 100
    seconds_per_step: Positive = 1.0
    default_steps: Count = 1
    jitter: Sigma = 0.0
    jitter_kind: Literal["lognormal", "half_normal", "shifted_exponential"] = "lognormal"
    links: Links = field(default_factory=Links)
    reliability: Reliability = field(default_factory=Reliability)
    geography: Geography | None = None
    seed: Annotated[int, Interval("[0, inf)")] = 0

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return node `index`'s time per step over the nominal one, > 0."""

    def generator(self, *key: int) -> np.random.Generator:
        """Return a fresh generator that belongs to (seed, key)."""
        return np.random.default_rng([self.seed, *key])

    def job_factor(self, generator: np.random.Generator) -> float:
        """Return a job's time over its node's usual one, > 0; one draw, whatever the kind."""
        if self.jitter_kind == "half_normal" and self.jitter:
            return max(1e-3, self.jitter * abs(float(generator.normal())))
        if self.jitter_kind == "shifted_exponential":
            return 1.0 + self.jitter * float(generator.exponential())
        return math.exp(self.jitter * generator.normal())

    @property
    def node_ids(self) -> range:
        """The ids of the nodes, in the order of their indices."""
        return range(_FIRST_NODE_ID, _FIRST_NODE_ID + self.num_nodes)

    def profile(self, index: int) -> NodeProfile:
        """Return the profile of node `index`, 0 <= index < num_nodes, seen from its proxy."""
        own = self.own_profile(index)
        if self.geography is None:
            return own
        region = self.geography.region(self.node_ids[index], own.attributes(index))
        links = Links(own.latency_s, own.download_bytes_per_s, own.upload_bytes_per_s)
        path, is_remote = self.geography.path(region, links), self.geography.is_remote(region)
        return replace(own, **vars(path), region=region, is_remote=is_remote)

    def own_profile(self, index: int) -> NodeProfile:
        """Return the profile of node `index` without the links between regions."""
        generator = self.generator(index)
        relative = self.relative_time(index, generator)
        links, reliability = self.links.of_node(self.seed, index), self.reliability
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
    """exp(sigma N(0, 1)): a long tail of slow devices.

    Parameters
    ----------
    sigma : deviation of the logarithm, in [0, 20].
    """

    sigma: Sigma = 1.5

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Draw from the lognormal distribution with median 1."""
        return math.exp(self.sigma * float(generator.normal()))


@dataclass(frozen=True, kw_only=True)
class Pareto(Fleet):
    """Pareto with index alpha from 1, cut at `cap`: heavy-tailed stragglers.

    Parameters
    ----------
    alpha : index of the tail, > 0; the smaller, the heavier.
    cap : longest relative time, >= 1.
    """

    alpha: Positive = 1.0
    cap: Annotated[float, Interval("[1, inf)", "every drawn time is at least 1")] = 60.0

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Draw from the capped Pareto distribution with minimum 1."""
        return min(self.cap, 1.0 + float(generator.pareto(self.alpha)))


@dataclass(frozen=True, kw_only=True)
class TwoClass(Fleet):
    """Two classes of devices, such as those with a GPU and those without.

    Parameters
    ----------
    ratio : times that the slow class takes of what the fast class takes, > 0.
    fast_fraction : share of the fast class, in [0, 1].
    """

    ratio: Positive = 25.0
    fast_fraction: Share = 0.5

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return 1 or `ratio`: fast and slow nodes alternate in the chosen proportion."""
        is_fast = math.floor((index + 1) * self.fast_fraction) > math.floor(
            index * self.fast_fraction
        )
        return 1.0 if is_fast else self.ratio


@dataclass(frozen=True, kw_only=True)
class Straggler(Fleet):
    """All devices are equal but the last.

    Parameters
    ----------
    ratio : times that the last device takes of what the others take, > 0.
    """

    ratio: Positive = 1000.0

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return `ratio` for the last node, 1 for the others."""
        return self.ratio if index == self.num_nodes - 1 else 1.0


@dataclass(frozen=True, kw_only=True)
class Scripted(Fleet):
    """Devices written down by hand: for tests and real traces.

    Parameters
    ----------
    times : seconds per step of node 0, 1, ..., each > 0.
    profiles : fields of `NodeProfile` to replace, by node index.
    """

    times: Annotated[Sequence[float], Interval("(0, inf)")] = (1.0,)
    profiles: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.times) == self.num_nodes,
            f"Scripted fleet: {len(self.times)} times for num_nodes={self.num_nodes} nodes.",
        )
        for index, replaced in self.profiles.items():
            unknown = sorted(set(replaced) - {f.name for f in fields(NodeProfile)})
            require(
                index in range(self.num_nodes) and not unknown,
                f"Scripted fleet: profiles[{index}] must name one of {self.num_nodes} nodes, and "
                f"fields of NodeProfile, not {unknown}.",
            )
            self.own_profile(index)

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return the written time."""
        return float(self.times[index])

    def own_profile(self, index: int) -> NodeProfile:
        """Return the written profile."""
        return replace(super().own_profile(index), **self.profiles.get(index, {}))

    @property
    def is_always_online(self) -> bool:
        """Whether no node ever leaves."""
        return all(self.profile(i).is_always_online for i in range(self.num_nodes))
