"""What is compared, where, and one run of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.configured import run

TARGET = 0.85
LIMIT_S = 400.0  # virtual seconds of a run
QUICK_LIMIT_S = 120.0
SLOW_DIGITS = (
    "accuracy-class-8",
    "accuracy-class-9",
)  # what `label_by_speed` gives slow nodes only
NEWEST = 5  # evaluations behind "the accuracy at the end": single ones swing

SYNCHRONOUS = {
    "FedAvg, waits for all": ("strategy=fedavg",),
    **{
        f"FedAvg, deadline {deadline_s} s": (
            "strategy=fedavg_deadline",
            f"strategy.deadline_s={deadline_s}",
        )
        for deadline_s in (2, 4, 8, 16, 32)
    },
    **{
        f"FedAvg of 60 nodes, deadline {deadline_s} s": (
            "strategy=fedavg_deadline",
            f"strategy.deadline_s={deadline_s}",
            "cohort=60",
        )
        for deadline_s in (2, 4, 8)
    },
    "FedAvg, asks 1.3 x": ("strategy=fedavg_overselect",),
    "FedAvg, asks 2 x": ("strategy=fedavg_overselect", "strategy.over_selection=2"),
}
"""Flower's rounds; the soonest of each cell, chosen on the test's own curve, is the one to beat."""

PAPER = ("scheduler=uniform", "concurrency=20")
PUBLISHED = {
    "FedBuff, as published": ("tuned=fedbuff", *PAPER),
    "FedAsync, as published": ("tuned=fedasync", *PAPER),
}
DEFAULT = "default"
OURS: dict[str, tuple[str, ...]] = {DEFAULT: ()}
TUNED = {
    "Ringmaster LMO": ("tuned=ringmaster_lmo",),
    "HeLoCo": ("tuned=heloco",),
    "longer jobs": ("scheduler.typical_steps=8",),
}
"""Ours with other settings; the soonest of each cell is "the best", beside the default itself."""

METHODS = SYNCHRONOUS | PUBLISHED | OURS | TUNED

QUICK_METHODS = (
    "FedAvg, deadline 4 s",
    "FedAvg, deadline 8 s",
    "FedAvg of 60 nodes, deadline 2 s",
    "FedAvg of 60 nodes, deadline 4 s",
    "FedAvg, asks 2 x",
    DEFAULT,
    "Ringmaster LMO",
)
QUICK_BY_SPEED = ("FedAvg, deadline 8 s", DEFAULT)


@dataclass(frozen=True)
class Cell:
    """Where methods meet.

    Parameters
    ----------
    fleet : choice of the group.
    links : choice of the group: unlimited or phones.
    partition : overrides that deal the data.
    app : further overrides.
    """

    fleet: str
    links: str
    partition: str
    app: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """What the cell says on the command line."""
        return [
            f"fleet={self.fleet}",
            f"links={self.links}",
            *self.partition.split(),
            *self.app,
        ]

    def __str__(self) -> str:
        partition = self.partition.removeprefix("partition=").replace(" partition.alpha=", " ")
        return " ".join((self.fleet, self.links, partition, *self.app))


def cells(quick: bool) -> Iterator[Cell]:
    """Yield the study's cells; of the quick one only some, with a small network."""
    small = ("app.model=mlp",) if quick else ()
    spread = "partition=dirichlet partition.alpha=0.5"
    by_speed = "partition=label_by_speed"
    if quick:
        yield Cell("equal", "unlimited", spread, small)
        yield Cell("lognormal", "unlimited", spread, small)
        yield Cell("lognormal", "phones", spread, small)
        yield Cell("equal", "unlimited", by_speed, small)
        yield Cell("lognormal", "unlimited", by_speed, small)
        return
    for fleet in ("equal", "two_class", "lognormal", "pareto", "phones"):
        for links in ("unlimited", "phones"):
            yield Cell(fleet, links, spread)
        yield Cell(fleet, "unlimited", by_speed)
    for partition in ("partition=iid", "partition=dirichlet partition.alpha=0.1"):
        yield Cell("lognormal", "unlimited", partition)


def methods_of(cell: Cell, quick: bool) -> Sequence[str]:
    """Return what is run in a cell."""
    if not quick:
        return tuple(METHODS)
    return QUICK_BY_SPEED if "label_by_speed" in cell.partition else QUICK_METHODS


def simulate(cell: Cell, method: str, seed: int, limit_s: float) -> dict[str, Any]:
    """Run a method in a cell until the target, by speed until `limit_s`; there at the latest.

    Returns
    -------
    ``time_s`` to the target (None if it was not reached), ``bytes`` and ``updates`` until the end,
    ``accuracy`` and ``slow`` at the end, and the ``curve``: (virtual s, accuracy) pairs.
    """
    torch.set_num_threads(1)
    # What is learned of the slow group takes the whole time; everything else ends at the target.
    stop = "true" if "label_by_speed" not in cell.partition else "false"
    summary, seen = run(
        [
            *cell.overrides,
            *METHODS[method],
            f"seed={seed}",
            "stopping=seconds",
            f"stopping.max_seconds={limit_s:g}",
            f"stopping.at_target={stop}",
            f"target={TARGET}",
        ]
    )
    newest = [line["metrics"] for line in seen[-NEWEST:]]
    return {
        "cell": str(cell),
        "method": method,
        "seed": seed,
        "limit_s": limit_s,
        "time_s": summary["time_to_target_s"],
        "accuracy": _mean(m["accuracy"] for m in newest),
        "slow": _mean(m[digit] for m in newest for digit in SLOW_DIGITS),
        "bytes": summary["bytes_down"] + summary["bytes_up"],
        "updates": summary["num_updates"],
        "wasted_s": summary["wasted_s"],
        "at_work_max": summary["at_work_max"],
        "curve": [(line["virtual_time_s"], line["metrics"]["accuracy"]) for line in seen],
    }


def _mean(values: Iterator[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
