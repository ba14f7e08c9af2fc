"""What differential privacy costs: accuracy over epsilon, and where many more nodes take part.

A thousand nodes with four images each train a small network; every version is private (`Private`).
Rows are called by epsilon of the node that paid most. A population of 100,000 is not simulated: its
releases would hold a hundred times as many updates under noise of the same multiplier, so that the
mean has a hundredth of the noise. That noise is what those rows have, and nothing else of it; their
epsilon is that of the population, not of this run.

    python -m benchmarks.privacy [--quick]

dp_gap     accuracy without privacy, less that at epsilon 8 with the noise of 100,000 nodes
"""

import argparse
import statistics
from typing import Any

from benchmarks.machine import print_result
from benchmarks.simulated import World, to_target
from fedagent import AsyncStrategy
from fedagent.privacy import Private, noise_multiplier_for
from fedagent.rules import FedBuff
from fedagent.simulation import Lognormal
from fedagent.tasks.partitioning import iid

NODES, AT_WORK, BUFFER = 1_000, 200, 100
DELTA = 1e-5
CLIP = 0.5
PER_NODE = 15
"""Releases that a node's budget is made for."""
POPULATION = 100  # times as many nodes


def accuracy(epsilon: float | None, population: int, seed: int, max_updates: int) -> dict[str, Any]:
    """Return the accuracy after `max_updates`, or when every budget is spent.

    Parameters
    ----------
    epsilon : of every node; None for no privacy.
    population : how many times as many nodes the noise is for.
    """
    spent: list[float] = []

    def build(**options: Any) -> AsyncStrategy:
        if epsilon is None:
            return AsyncStrategy(
                FedBuff(BUFFER, weighted=False), concurrency=AT_WORK, cohort=BUFFER, **options
            )
        multiplier = noise_multiplier_for(epsilon, DELTA, PER_NODE)
        rule = Private(
            FedBuff(buffer_size=1),
            BUFFER,
            clip_norm=CLIP,
            noise_multiplier=multiplier / population,
            delta=DELTA,
            seed=seed,
        )
        spent.append(multiplier)
        return AsyncStrategy(rule, concurrency=AT_WORK, cohort=BUFFER, **options)

    world = World(
        fleet=Lognormal(num_nodes=NODES, seed=seed),
        seed=seed,
        partition=iid,
        max_updates=max_updates,
        target=2.0,
    )
    return to_target(build, world)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, about a minute")
    quick = parser.parse_args().quick
