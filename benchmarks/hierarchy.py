"""A proxy per region against one for all: time and bytes between regions to a target accuracy.

    100 nodes in 4 regions of 25, a job works about 8 s (lognormal, sigma 0.5), the model (25,450
    parameters, 102 kB) takes 26 s on a link between regions each way and 0.2 s inside a region.

Flat FedBuff has its proxy in region 0: 25 nodes are near it, 75 far away. Hierarchical FedBuff has
an edge in every region, and the root in region 0. Both keep all 100 nodes at work on packaged
MNIST, dealt so that regions differ (half of the images go to the region that has their labels, the
other half anywhere), or the nodes (Dirichlet 0.5) and hardly the regions. Learning rates were tuned
per method on one other seed: client rates 0.2 to 0.8, root rates 0.25 to 1.

    python -m benchmarks.hierarchy [--quick]        JSON on the last line
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.simulated import World, report, to_target
from fedagent import FedBuff, Hierarchical
from fedagent.partitioning import Partition, dirichlet
from fedagent.regions import Blocks
from fedagent.rules import FedBuff as FedBuffRule
from fedagent.simulation import Geography, Links, Lognormal
from fedagent.staleness import constant

NODES, REGIONS = 100, 4
INSIDE, BETWEEN = Links(0.1, 1e6, 1e6), Links(0.5, 4e3, 4e3)


def by_region(
    labels: npt.ArrayLike,
    num_partitions: int,
    *,
    seed: int = 1,
    seconds_per_step: Sequence[float] | None = None,
) -> list[npt.NDArray[np.int64]]:
    """Deal half of the images to the region that has their labels, the others to any region."""
    classes, rng = np.asarray(labels), np.random.default_rng(seed)
    is_at_home = rng.random(len(classes)) < 0.5
    anywhere = rng.integers(0, REGIONS, len(classes))
    region = np.where(is_at_home, classes * REGIONS // 10, anywhere)
    shuffled = [rng.permutation(np.flatnonzero(region == r)) for r in range(REGIONS)]
    return [part for s in shuffled for part in np.array_split(s, num_partitions // REGIONS)]


DATA: dict[str, Partition] = {"regions-differ": by_region, "nodes-differ": dirichlet}


def world(seed: int, data: str, has_edges: bool, learning_rate: float) -> World:
    """Return a run's fleet and data; two local steps of 4 s make a job."""
    fleet = Lognormal(
        num_nodes=NODES,
        sigma=0.5,
        seconds_per_step=4.0,
        links=INSIDE,
        geography=Geography(Blocks(REGIONS, NODES), BETWEEN, has_edges),
        seed=seed,
    )
    return World(fleet, seed, DATA[data], learning_rate, local_steps=2, max_updates=6000)


def flat(seed: int, data: str) -> dict[str, float | None]:
    """Run FedBuff with one proxy."""
    build = partial(FedBuff, 10, concurrency=NODES, evaluate_every=2)
    return to_target(build, world(seed, data, has_edges=False, learning_rate=FLAT_RATE))


def hierarchical(seed: int, data: str) -> dict[str, float | None]:
    """Run FedBuff at both levels."""
    build = partial(
        Hierarchical,
        Blocks(REGIONS, NODES),
        root=FedBuffRule(1, ROOT_RATE, staleness=constant),
        merge_weight=1.0,
        links=BETWEEN,
        concurrency=NODES,
    )
    return to_target(build, world(seed, data, has_edges=True, learning_rate=EDGE_RATE))


FLAT_RATE, EDGE_RATE, ROOT_RATE = 0.6, 0.6, 0.25


def hierarchy(quick: bool) -> dict[str, object]:
    """Return per data set what both methods took, and the ratios of their means over seeds."""
    seeds = [1] if quick else [1, 2, 3]
    results: dict[str, object] = {}
    for data in list(DATA)[:1] if quick else DATA:
        runs = {f.__name__: [f(seed, data) for seed in seeds] for f in (flat, hierarchical)}
        mean = {name: _means(outcomes) for name, outcomes in runs.items()}
        one, many = mean["flat"], mean["hierarchical"]
        results[data] = {
            **mean,
            "time_ratio": one["time_to_target_s"] / many["time_to_target_s"],
            "time_ratios": [
                a["time_to_target_s"] / b["time_to_target_s"]  # type: ignore[operator]
                for a, b in zip(*runs.values(), strict=True)
            ],
            "bytes_ratio": one["bytes_between_regions"] / many["bytes_between_regions"],
        }
        print(
            f"{data}: flat {one['time_to_target_s']:.0f} s, hierarchical "
            f"{many['time_to_target_s']:.0f} s to {World.target:.0%}; "
            f"{one['time_to_target_s'] / many['time_to_target_s']:.2f}x sooner, "
            f"{one['bytes_between_regions'] / many['bytes_between_regions']:.1f}x fewer bytes "
            "between regions",
            flush=True,
        )
    return {"benchmark": "hierarchy", "seeds": len(seeds), "target": World.target, **results}


def _means(outcomes: list[dict[str, float | None]]) -> dict[str, float]:
    return {
        key: statistics.fmean(float("inf") if o[key] is None else o[key] for o in outcomes)
        for key in outcomes[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one data set, one seed")
    report(hierarchy(parser.parse_args().quick))


if __name__ == "__main__":
    main()
