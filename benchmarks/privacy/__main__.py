"""What differential privacy costs: accuracy over epsilon, and where many more nodes take part.

A thousand nodes with four images each train a small network; every version is private (`Private`).
Rows are called by the epsilon of the node that paid most. A population of 100,000 is not simulated:
its releases would hold a hundred times as many updates under noise of the same multiplier, so that
the mean has a hundredth of the noise. That noise is what those rows have, and nothing else of it;
their epsilon is that of the population, not of this run.

    python -m benchmarks.privacy [--quick] [--seeds 1,2,3]
    python -m benchmarks.privacy --secure      what secure sums cost, in bytes and seconds

dp_gap     accuracy without privacy, less that at epsilon 8 with the noise of 100,000 nodes
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.machine import print_result
from benchmarks.privacy import secure
from benchmarks.simulated import World, to_target
from fedagent import AsyncStrategy
from fedagent.privacy import Noise, Private, noise_multiplier_for
from fedagent.rules import FedBuff
from fedagent.simulation import Lognormal
from fedagent.tasks.partitioning import iid

NODES, AT_WORK, BUFFER = 1_000, 200, 100
DELTA = 1e-5
CLIP = 0.5
PER_NODE = 15
"""Releases that a node's budget is made for."""
POPULATION = 100  # times as many nodes


class Quieter(Noise):
    """The noise of a mean over `POPULATION` times as many updates, as seen by this many."""

    def add_to(self, total: torch.Tensor, std: float) -> None:
        """Add a draw that is so many times smaller; what nodes pay is that of the whole one."""
        super().add_to(total, std / POPULATION)


def trained(epsilon: float | None, is_scaled: bool, seed: int, max_updates: int) -> dict[str, Any]:
    """Return the accuracy after `max_updates`, or when every budget is spent, and the epsilon.

    Parameters
    ----------
    epsilon : what every node may spend; None for no privacy.
    is_scaled : whether the noise is that of the large population.
    """
    multiplier = noise_multiplier_for(epsilon or 1.0, DELTA, PER_NODE)
    rule = Private(
        FedBuff(buffer_size=1), BUFFER, CLIP, multiplier, DELTA, epsilon_budget=epsilon, seed=seed
    )
    if is_scaled:
        rule._noise = Quieter(seed)

    def build(**options: Any) -> AsyncStrategy:
        plain = FedBuff(BUFFER, weighted=False)
        return AsyncStrategy(
            rule if epsilon else plain, concurrency=AT_WORK, cohort=BUFFER, **options
        )

    fleet = Lognormal(num_nodes=NODES, seed=seed)
    world = World(fleet, seed, partition=iid, max_updates=max_updates, target=2.0)
    done = to_target(build, world)
    return done | {"epsilon": rule.accountant.epsilon() if epsilon else None}


def gap(seeds: Sequence[int], max_updates: int) -> float:
    """Return what epsilon 8 with the noise of the large population costs, in accuracy."""
    none, private = (
        statistics.mean(
            trained(epsilon, epsilon is not None, seed, max_updates)["final_accuracy"]
            for seed in seeds
        )
        for epsilon in (None, 8.0)
    )
    return none - private


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one seed, epsilon 8, a third of the updates"
    )
    parser.add_argument("--seeds", default="1,2,3", help="default 1,2,3")
    parser.add_argument("--secure", action="store_true", help="secure sums, and nothing else")
    options = parser.parse_args()
    if options.secure:
        secure.measure()
        return
    quick = options.quick
    seeds = [1] if quick else [int(seed) for seed in options.seeds.split(",")]
    max_updates = 4_000 if quick else 12_000
    rows: list[tuple[float | None, bool]] = [(None, False), (8.0, False), (8.0, True)]
    if not quick:
        rows += [(2.0, False), (2.0, True)]
    found: dict[str, Any] = {}
    print("| epsilon | noise of | accuracy | updates |\n|---|---|---|---|")
    for epsilon, is_scaled in rows:
        runs = [trained(epsilon, is_scaled, seed, max_updates) for seed in seeds]
        accuracy = statistics.mean(run["final_accuracy"] for run in runs)
        updates = statistics.mean(run["num_updates"] for run in runs)
        spent = f"{max(run['epsilon'] for run in runs):.2f}" if epsilon else "none"
        size = NODES * (POPULATION if is_scaled else 1) if epsilon else 0
        print(
            f"| {spent} | {f'{size:,} nodes' if size else '-'} | {accuracy:.3f} | {updates:.0f} |"
        )
        found[f"accuracy_{epsilon:g}_{size}" if epsilon else "accuracy"] = round(accuracy, 4)
    found["dp_gap"] = round(found["accuracy"] - found[f"accuracy_8_{NODES * POPULATION}"], 4)
    print_result("privacy", found, nodes=NODES, delta=DELTA, seeds=seeds)


if __name__ == "__main__":
    main()
