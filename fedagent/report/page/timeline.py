"""Which bars a timeline has: a row per node, slow ones together, a bar per job."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedagent.report.jobs import Job
from fedagent.report.page.data import Floats

MOST_BARS = 10_000
MOST_ROWS = 100
MOST_TICKS = 2_000
GROUPS = ("fast", "middle", "slow")
"""A third of the nodes each, by the median seconds that a local step took, transfers included."""
STALE = ((0, "applied, fresh"), (3, "staleness 1 to 3"), (15, "4 to 15"), (np.inf, "16 and more"))
"""The greatest staleness of a kind of applied job, and what the kind is called."""
KINDS = (*(name for _, name in STALE), "rejected", "failed", "expired")


@dataclass(frozen=True)
class Nodes:
    """The nodes that had a job, from fast to slow. Shape legend: N nodes.

    Attributes
    ----------
    ids : (N,) as text.
    speed_s : (N,) median seconds per local step, or per job where steps are unknown; NaN where no
        job was done.
    group : (N,) "fast", "middle" or "slow"; "unknown" where no job was done.
    jobs : (N,) the jobs of each.
    """

    ids: Sequence[str]
    speed_s: Floats
    group: Sequence[str]
    jobs: Sequence[Sequence[Job]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Timeline:
    """What is drawn. Shape legend: B bars, in R rows.

    Attributes
    ----------
    nodes : (R,) places in `Nodes`, from the lowest row, the slowest node, to the highest.
    row : (B,) 0 to R - 1.
    left, right : (B,) seconds on the run's clock.
    kind : (B,) places in `KINDS`.
    jobs : (B,) the jobs themselves.
    num_rows, num_bars : how many there would be if all were drawn.
    """

    nodes: Sequence[int]
    row: npt.NDArray[np.int64]
    left: Floats
    right: Floats
    kind: npt.NDArray[np.int64]
    jobs: Sequence[Job]
    num_rows: int
    num_bars: int

    @property
    def is_sampled(self) -> bool:
        """Whether rows or bars are left out."""
        return len(self.nodes) < self.num_rows or len(self.jobs) < self.num_bars


def nodes_of(jobs: Sequence[Job]) -> Nodes:
    """Return the nodes of jobs, from fast to slow, those that did none last."""
    by_id: dict[str, list[Job]] = {}
    for job in jobs:
        by_id.setdefault(job.node_id, []).append(job)
    speeds = {node_id: _speed_s(own) for node_id, own in by_id.items()}
    order = sorted(by_id, key=lambda i: (np.isnan(speeds[i]), speeds[i], len(i), i))
    known = sum(not np.isnan(speed) for speed in speeds.values())
    group = [
        GROUPS[place * len(GROUPS) // known] if place < known else "unknown"
        for place in range(len(order))
    ]
    speed_s = np.array([speeds[i] for i in order], dtype=np.float64)
    return Nodes(order, speed_s, group, [by_id[i] for i in order])


def timeline_of(nodes: Nodes) -> Timeline:
    """Return the bars of at most 100 nodes and 10,000 jobs.

    Of more nodes some are left out, evenly from fast to slow, and none of the jobs of the others:
    a job that is left out would look like idle time. Only if few nodes have more than 10,000 jobs,
    the last ones are left out.
    """
    told = [[job for job in own if job.ended_s is not None] for own in nodes.jobs]
    usable = [place for place, own in enumerate(told) if own]
    num_bars = sum(map(len, told))
    chosen = _evenly(usable, MOST_ROWS)
    while len(chosen) > 1 and sum(len(told[place]) for place in chosen) > MOST_BARS:
        chosen = _evenly(chosen, max(1, len(chosen) * 4 // 5))
    chosen = chosen[::-1]  # the slowest in the lowest row
    bars = [(row, job) for row, place in enumerate(chosen) for job in told[place]]
    bars = sorted(bars, key=lambda bar: bar[1].ended_s or 0.0)[:MOST_BARS]
    ended = np.array([job.ended_s for _, job in bars], dtype=np.float64)
    duration = np.array([job.duration_s for _, job in bars], dtype=np.float64)
    return Timeline(
        nodes=chosen,
        row=np.array([row for row, _ in bars], dtype=np.int64),
        left=np.maximum(ended - duration, 0.0),
        right=ended,
        kind=np.array([kind_of(job) for _, job in bars], dtype=np.int64),
        jobs=[job for _, job in bars],
        num_rows=len(usable),
        num_bars=num_bars,
    )


def kind_of(job: Job) -> int:
    """Return which of `KINDS` a job is."""
    if job.outcome in KINDS:
        return KINDS.index(job.outcome)
    return next(place for place, (most, _) in enumerate(STALE) if (job.staleness or 0) <= most)


def by_group(nodes: Nodes) -> Mapping[str, list[int]]:
    """Return the places of the nodes of every group that has some, from fast to slow."""
    groups: dict[str, list[int]] = {}
    for place, group in enumerate(nodes.group):
        groups.setdefault(group, []).append(place)
    return groups


def _speed_s(jobs: Sequence[Job]) -> float:
    taken = [job.duration_s / (job.local_steps or 1) for job in jobs if job.is_done]
    return statistics.median(taken) if taken else float("nan")


def _evenly(places: Sequence[int], most: int) -> list[int]:
    if len(places) <= most:
        return list(places)
    return [places[i] for i in np.unique(np.linspace(0, len(places) - 1, most).round().astype(int))]
