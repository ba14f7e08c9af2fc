"""Three of ten jobs fail on a fleet whose devices differ tenfold in speed: what that costs."""

import statistics
from typing import Any

import numpy as np

from benchmarks.simulated import World, to_target
from fedagent import FedBuff
from fedagent.simulation import Reliability, Scripted

NODES, CONCURRENCY = 60, 20
SLOWEST, FAILURE_RATE = 10.0, 0.3


def time_to_target(seeds: range) -> dict[str, Any]:
    """Train to the same accuracy with and without failures, on virtual time, seed by seed.

    Returns
    -------
    Medians over seeds of faulty over fault-free: ``time_ratio`` of the times to the target, and
    ``time_ratio_per_update`` of these over the updates that it took. A job that fails dies
    anywhere on its way, so the least that failures can cost is 1 + 0.3 / 0.7 / 2 = 1.21.
    """
    pairs = [(_run(seed, 0.0), _run(seed, FAILURE_RATE)) for seed in seeds]
    times = [faulty["time_to_target_s"] / whole["time_to_target_s"] for whole, faulty in pairs]
    updates = [faulty["updates_to_target"] / whole["updates_to_target"] for whole, faulty in pairs]
    each = [t / u for t, u in zip(times, updates, strict=True)]
    return {
        "failures_time_ratio": round(statistics.median(times), 3),
        "failures_time_ratio_per_update": round(statistics.median(each), 3),
    }


def _run(seed: int, failure_rate: float) -> dict[str, Any]:
    order = np.random.default_rng(seed).permutation(np.geomspace(1.0, SLOWEST, NODES))
    fleet = Scripted(
        num_nodes=NODES,
        times=tuple(map(float, order)),
        reliability=Reliability(failure_rate=failure_rate),
        seed=seed,
    )

    def build(**options: Any) -> FedBuff:
        return FedBuff(buffer_size=CONCURRENCY, concurrency=CONCURRENCY, **options)

    return to_target(build, World(fleet, seed))
