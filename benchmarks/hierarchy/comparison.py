"""Flat and hierarchical FedBuff in the same world."""

import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.simulated import World, to_target
from fedagent import FedBuff, Hierarchical
from fedagent.nodes.geography import Blocks
from fedagent.rules import FedBuff as FedBuffRule
from fedagent.rules.staleness import constant
from fedagent.simulation import Geography, Links, Lognormal
from fedagent.tasks.partitioning import Indices, Speeds, dirichlet

NODES, REGIONS = 100, 4
INSIDE, BETWEEN = Links(0.1, 1e6, 1e6), Links(0.5, 1.7e3, 1.7e3)
LEARNING_RATE, ROOT_RATE = 0.4, 0.5
TARGET, QUICK_TARGET = 0.85, 0.65

Outcome = dict[str, float | None]


def by_region(
    labels: npt.ArrayLike,
    num_partitions: int,
    *,
    seed: int = 1,
    seconds_per_step: Speeds | None = None,
) -> list[Indices]:
    """Divide each class among the regions by Dirichlet(0.3), and a region's examples evenly."""
    regions = dirichlet(labels, REGIONS, alpha=0.3, min_size=400, seed=seed)
    rng = np.random.default_rng(seed)
    return [
        part
        for region in regions
        for part in np.array_split(rng.permutation(region), num_partitions // REGIONS)
    ]


def world(seed: int, target: float, has_edges: bool) -> World:
    """Return a run's fleet and data."""
    fleet = Lognormal(
        num_nodes=NODES,
        sigma=0.5,
        seconds_per_step=8.0,
        links=INSIDE,
        geography=Geography(Blocks(REGIONS, NODES), BETWEEN, has_edges),
        seed=seed,
    )
    return World(
        fleet,
        seed,
        partition=by_region,
        learning_rate=LEARNING_RATE,
        local_steps=1,
        max_updates=16_000,
        target=target,
    )


def flat(seed: int, target: float) -> Outcome:
    """Run FedBuff with one proxy."""
    build = partial(FedBuff, buffer_size=10, concurrency=NODES)
    return to_target(build, world(seed, target, has_edges=False))


def hierarchical(seed: int, target: float) -> Outcome:
    """Run FedBuff at both levels."""
    build = partial(
        Hierarchical,
        Blocks(REGIONS, NODES),
        root=FedBuffRule(1, ROOT_RATE, staleness=constant),
        merge_weight=1.0,
        links=BETWEEN,
        concurrency=NODES,
    )
    return to_target(build, world(seed, target, has_edges=True))


def hierarchy(quick: bool, seeds: Sequence[int] = (1, 2, 3)) -> dict[str, object]:
    """Return what both methods took, per seed and on average, and by how much they differ."""
    seeds, target = ([1], QUICK_TARGET) if quick else (list(seeds), TARGET)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        futures = {
            name: [pool.submit(run, seed, target) for seed in seeds]
            for name, run in (("flat", flat), ("hierarchical", hierarchical))
        }
        runs = {name: [future.result() for future in started] for name, started in futures.items()}
    for name, outcomes in runs.items():
        for seed, outcome in zip(seeds, outcomes, strict=True):
            print(f"seed {seed}, {name}: {outcome}", flush=True)
    one, many = (_means(outcomes) for outcomes in runs.values())
    ratios = {
        "time_ratio": one["time_to_target_s"] / many["time_to_target_s"],
        "bytes_ratio": one["bytes_between_regions"] / many["bytes_between_regions"],
    }
    print(f"{ratios['time_ratio']:.2f} times sooner, {ratios['bytes_ratio']:.1f} times fewer bytes")
    return {
        "seeds": seeds,
        "target": target,
        **ratios,
        "flat": one,
        "hierarchical": many,
    }


def _means(outcomes: list[Outcome]) -> dict[str, float]:
    """Return the mean over seeds; a target that was not reached took infinitely long."""
    return {
        key: statistics.fmean(float("inf") if o[key] is None else o[key] for o in outcomes)
        for key in outcomes[0]
    }
