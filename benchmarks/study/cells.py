"""What is compared, where, and one run of it."""

import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.configured import run
from benchmarks.study.devices import write_devices
from fedagent.errors import ConfigurationError, RunStalledError

Runs = list[dict[str, Any]]

TARGET = 0.85  # of digits; other applications bring their own
LIMIT_S = 400.0  # virtual seconds of a run
QUICK_LIMIT_S = 120.0
MOST = 4.0  # times the default's time: rounds that need longer are "at least so many times" slower
CLOSE = 1.25  # times the soonest's time: what came so close with one seed is run with the others
SLOW_DIGITS = (
    "accuracy-class-8",
    "accuracy-class-9",
)  # what `label_by_speed` gives slow nodes only
NEWEST = 5  # evaluations behind "the accuracy at the end": single ones swing


def _deadlines(*deadlines_s: int) -> dict[str, tuple[str, ...]]:
    return {
        f"FedAvg, deadline {deadline_s} s": (
            "strategy=fedavg_deadline",
            f"strategy.deadline_s={deadline_s}",
        )
        for deadline_s in deadlines_s
    }


def _wide(*deadlines_s: int) -> dict[str, tuple[str, ...]]:
    return {
        name.replace("FedAvg,", "FedAvg of 60 nodes,"): (*words, "cohort=60")
        for name, words in _deadlines(*deadlines_s).items()
    }


def _adaptive(*etas: float) -> dict[str, tuple[str, ...]]:
    return {
        f"FedAdam({eta}) of 60 nodes, deadline 4 s": (
            *_wide(4)["FedAvg of 60 nodes, deadline 4 s"],
            "strategy.strategy._target_=flwr.serverapp.strategy.FedAdam",
            f"+strategy.strategy.eta={eta}",
        )
        for eta in etas
    }


TIERED = {
    f"FedAT, {num_tiers} tiers of {cohort}": (
        "strategy=fedat",
        "scheduler=tiers",  # an application may bring another
        f"scheduler.num_tiers={num_tiers}",
        f"scheduler.cohort={cohort}",
    )
    for num_tiers, cohort in ((2, 20), (2, 50))
}

# The likely ones first: the later ones are stopped as soon as they cannot be the soonest.
SYNCHRONOUS = {
    **_adaptive(0.03),
    "FedAvg, asks 2 x": ("strategy=fedavg_overselect", "strategy.over_selection=2"),
    **_wide(4, 2),
    **_deadlines(8, 4),
    **_wide(8),
    **_adaptive(0.01),
    "FedAvg, asks 1.3 x": ("strategy=fedavg_overselect",),
    **_deadlines(16, 2),
    **TIERED,
    "FedAvg, waits for all": ("strategy=fedavg",),
}
"""Flower's rounds, and those of tiers; the soonest of each cell and seed is the one to beat."""

PUBLISHED = {
    "FedBuff, as published": ("tuned=fedbuff", "scheduler=uniform", "concurrency=20"),
    "FedAsync, as published": ("tuned=fedasync", "scheduler=uniform", "concurrency=20"),
}
FEDBUFF = ("FedBuff, as published",)
DEFAULT = "default"
OURS: dict[str, tuple[str, ...]] = {DEFAULT: ()}
_MORE = "concurrency={_target_: fedagent.scheduling.AutoConcurrency, staleness: 100}"
TUNED = {
    "staler": (_MORE,),
    "FedBuff": ("tuned=fedbuff",),
    "CA2FL": ("tuned=ca2fl",),
}
"""Ours with other settings; the soonest of each cell is "the best", beside the default itself."""

BUDGET = "default, FedBuff's bytes"
"""The default with as many bytes per second as FedBuff as published took to the target."""

METHODS = SYNCHRONOUS | PUBLISHED | OURS | TUNED | {BUDGET: ("concurrency=20",)}

QUICK_ROUNDS = (
    "FedAdam(0.03) of 60 nodes, deadline 4 s",
    "FedAvg of 60 nodes, deadline 4 s",
    "FedAvg, asks 2 x",
    "FedAvg, deadline 8 s",
)
QUICK_TUNED = ("staler",)
BY_SPEED = ("FedAvg, deadline 8 s", DEFAULT)


@dataclass(frozen=True)
class Cell:
    """Where methods meet.

    Parameters
    ----------
    fleet : choice of the group; of trace the devices are written anew for every seed.
    links : choice of the group: unlimited or phones.
    data : overrides that choose the data and how it is dealt.
    """

    fleet: str
    links: str
    data: str

    @property
    def bandwidth(self) -> str:
        """``unlimited``, or what the transfers take time on."""
        return "its own" if self.fleet == "trace" else self.links

    @property
    def by_speed(self) -> bool:
        """Whether some classes are with slow nodes only: all methods then go on to the end."""
        return "label_by_speed" in self.data

    def __str__(self) -> str:
        data = self.data.removeprefix("partition=").replace(" partition.alpha=", " ")
        return " ".join((self.fleet, self.links, data))


SPREAD = "partition=dirichlet partition.alpha=0.5"
LABELS_BY_SPEED = "partition=label_by_speed"
# A job of these takes as long as one of the digits': eight times what a typical node needs a step.
RECOMMENDATION = "app=recommendation fleet.seconds_per_step=2"
TRAFFIC = "app=traffic fleet.seconds_per_step=0.125"


def cells(quick: bool) -> Iterator[Cell]:
    """Yield the study's cells; of the quick one only some, with a small network."""
    if quick:
        yield Cell("equal", "unlimited", f"{SPREAD} app.model=mlp")
        yield Cell("lognormal", "unlimited", f"{SPREAD} app.model=mlp")
        yield Cell("lognormal", "phones", f"{SPREAD} app.model=mlp")
        yield Cell("equal", "unlimited", f"{LABELS_BY_SPEED} app.model=mlp")
        yield Cell("lognormal", "unlimited", f"{LABELS_BY_SPEED} app.model=mlp")
        return
    for links in ("unlimited", "phones"):
        for fleet in ("lognormal", "two_class", "pareto", "phones", "equal"):
            yield Cell(fleet, links, SPREAD)
    yield Cell("trace", "unlimited", SPREAD)
    for fleet in ("equal", "two_class", "lognormal"):
        yield Cell(fleet, "unlimited", LABELS_BY_SPEED)
    for data in ("partition=iid", "partition=dirichlet partition.alpha=0.1"):
        yield Cell("lognormal", "unlimited", data)
    for data in (RECOMMENDATION, TRAFFIC):
        yield Cell("lognormal", "unlimited", data)


def study(cell: Cell, seeds: Sequence[int], quick: bool) -> Runs:
    """Run a cell's methods with every seed: with the first one all rounds, then the likely ones."""
    torch.set_num_threads(1)
    limit_s = QUICK_LIMIT_S if quick else LIMIT_S
    if cell.by_speed:
        return [simulate(cell, m, seed, limit_s) for seed in seeds for m in BY_SPEED]
    rounds = QUICK_ROUNDS if quick else tuple(SYNCHRONOUS)
    runs: Runs = []
    for seed in seeds:
        default = simulate(cell, DEFAULT, seed, limit_s)
        own_s = default["time_s"] or limit_s
        soonest = _soonest(cell, rounds, seed, min(limit_s, MOST * own_s))
        rounds = tuple(run["method"] for run in soonest if run["time_s"]) or rounds[:2]
        runs += [default, *soonest, *_soonest(cell, QUICK_TUNED if quick else TUNED, seed, own_s)]
        if not quick:
            runs += _published(cell, seed)
    return runs


def _soonest(cell: Cell, methods: Iterable[str], seed: int, limit_s: float) -> Runs:
    """Run methods, each only while it comes close to the soonest before it."""
    runs: Runs = []
    for method in methods:
        try:
            runs.append(simulate(cell, method, seed, limit_s))
        # A deadline that nobody can keep, or more nodes than there are.
        except (RunStalledError, ConfigurationError) as error:
            print(f"{cell}, {method}, seed {seed}: {error}", file=sys.stderr)
            continue
        limit_s = min(limit_s, CLOSE * (runs[-1]["time_s"] or limit_s))
    return runs


def _published(cell: Cell, seed: int) -> Runs:
    """Run FedBuff and FedAsync as published, and the default on as many bytes as FedBuff takes."""
    runs = [simulate(cell, method, seed, LIMIT_S) for method in PUBLISHED]
    if (time_s := runs[0]["time_s"]) and cell.data == SPREAD:
        budget = f"scheduler.bytes_per_s={runs[0]['bytes'] / time_s}"
        runs.append(simulate(cell, BUDGET, seed, time_s, [budget]))
    return runs


def simulate(
    cell: Cell, method: str, seed: int, limit_s: float, words: Sequence[str] = ()
) -> dict[str, Any]:
    """Run a method in a cell, with further overrides, until the target or `limit_s`.

    By speed it goes on to `limit_s`: what is learned of the slow group takes time.

    Returns
    -------
    ``time_s`` to the target (None if it was not reached), ``bytes``, ``updates``, ``wasted_s`` and
    ``at_work_max`` until the end; by speed ``accuracy`` and ``slow`` at the end.
    """
    with tempfile.TemporaryDirectory() as folder:
        devices = Path(folder) / "devices.csv"
        if cell.fleet == "trace":
            write_devices(devices, seed)
            words = [*words, f"fleet.path={devices}"]
        summary, seen = run(
            [
                f"fleet={cell.fleet}",
                f"links={cell.links}",
                *cell.data.split(),
                *METHODS[method],
                f"seed={seed}",
                "stopping=seconds",
                f"stopping.max_seconds={limit_s}",
                f"stopping.at_target={str(not cell.by_speed).lower()}",
                *(() if cell.data.startswith("app=") else (f"target={TARGET}",)),
                *words,
            ]
        )
    print(f"{cell}, {method}, seed {seed}: {summary['time_to_target_s']}", file=sys.stderr)
    result = {
        "cell": str(cell),
        "method": method,
        "seed": seed,
        "limit_s": limit_s,
        "time_s": summary["time_to_target_s"],
        "bytes": summary["bytes_down"] + summary["bytes_up"],
        "updates": summary["num_updates"],
        "wasted_s": summary["wasted_s"],
        "at_work_max": summary["at_work_max"],
    }
    if cell.by_speed:
        newest = [line["metrics"] for line in seen[-NEWEST:]]
        result["accuracy"] = _mean(metrics["accuracy"] for metrics in newest)
        result["slow"] = _mean(metrics[digit] for metrics in newest for digit in SLOW_DIGITS)
    return result


def _mean(values: Iterator[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
