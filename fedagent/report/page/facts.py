"""What only an asynchronous run has to tell, in numbers; what was not recorded is None or empty."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedagent.report.jobs import Job
from fedagent.report.page.data import Floats, PageRun
from fedagent.report.page.timeline import Nodes, by_group
from fedagent.update import Outcome

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_NODES = 1_000
"""Of how many nodes the shares are drawn."""


@dataclass(frozen=True)
class SlotTime:
    """What the slots' seconds were: parts of concurrency x time, each a share of it, 0 to 1.

    Attributes
    ----------
    useful : behind updates that were applied, as far as their staleness left them.
    discounted : what (1 + tau)^-1/2 takes off those, one yardstick whatever the rule's own weight.
    wasted : behind jobs that failed, were refused or expired.
    idle : in which no node was at work.
    """

    useful: float
    discounted: float
    wasted: float
    idle: float


@dataclass(frozen=True)
class Shares:
    """What nodes hold and what they move. Shape legend: N nodes, places in `Nodes`.

    Attributes
    ----------
    nodes : (N,) those whose examples are known: an update of theirs was applied.
    data : (N,) their share of the examples of all of them.
    influence : (N,) their share of the sum of s(tau) over the updates applied.
    """

    nodes: Sequence[int]
    data: Floats
    influence: Floats


def slot_time(run: PageRun) -> SlotTime | None:
    """Return what became of the slots' time; None for runs that do not tell."""
    said = [run.summary.get(key) for key in ("slots_s", "busy_s", "applied_s", "useful_s")]
    if not all(isinstance(value, int | float) for value in said) or not said[0]:
        return None
    slots_s, busy_s, applied_s, useful_s = map(float, said)  # type: ignore[arg-type]
    whole = max(slots_s, busy_s)  # nodes past their deadline work in nobody's slot
    return SlotTime(
        useful=useful_s / whole,
        discounted=max(0.0, applied_s - useful_s) / whole,
        wasted=max(0.0, busy_s - applied_s) / whole,
        idle=max(0.0, whole - max(busy_s, applied_s)) / whole,
    )


def staleness_by_group(nodes: Nodes) -> Mapping[str, Floats]:
    """Return the (5,) `QUANTILES` of the staleness of every group's applied updates."""
    found = {}
    for group, places in by_group(nodes).items():
        values = [job.staleness for place in places for job in nodes.jobs[place]]
        known = [value for value in values if value is not None]
        if known:
            found[group] = np.quantile(np.array(known, dtype=np.float64), QUANTILES)
    return found


def shares(nodes: Nodes) -> Shares | None:
    """Return data against influence; None where no update says how many examples it is of."""
    places, examples, weights = [], [], []
    for place, jobs in enumerate(nodes.jobs):
        own = [job for job in jobs if job.outcome == Outcome.APPLIED]
        known = [job.num_examples for job in own if job.num_examples is not None]
        if known:
            places.append(place)
            examples.append(max(known))
            weights.append(sum(1.0 if j.discount is None else j.discount for j in own))
    data, influence = np.array(examples, np.float64), np.array(weights, np.float64)
    if not places or not data.sum() or not influence.sum():
        return None
    return Shares(places, data / data.sum(), influence / influence.sum())


def losses(run: PageRun) -> Mapping[str, int]:
    """Return how often jobs did not end as applied, by outcome and reason, most often first."""
    counted = run.summary.get("dispatches")
    if counted is None:
        counted = Counter(_named(job) for job in run.jobs)
    lost = {str(name): int(n) for name, n in counted.items() if name != str(Outcome.APPLIED)}
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def fruitless(run: PageRun) -> Mapping[str, Mapping[str, int]]:
    """Return the nodes none of whose jobs changed the model, and how often those ended how."""
    found = run.summary.get("fruitless_nodes")
    return dict(found) if isinstance(found, Mapping) else {}


def _named(job: Job) -> str:
    return f"{job.outcome}({job.reason})" if job.reason else str(job.outcome)
