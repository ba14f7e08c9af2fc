"""What the three knobs of delayed feedback cost and buy, one at a time.

    20 nodes, a local step takes about 1 s (lognormal, sigma 0.5); a message's two ways take 4 s
    together; packaged MNIST, Dirichlet 0.5; FedBuff, all nodes at work

    local_steps        2, 8, 32 between two messages
    prefetch           0, 1, 2 jobs queued at a node; its client starts from the dispatched model,
                       or goes on from its own (`continue_locally_mod`)
    update frequency   a version every 1, 5, 20 updates, or every 2, 10, 40 s

Printed per setting: virtual seconds, updates, local steps and bytes to the target accuracy, mean
staleness, and the share of time that nodes spent working.

    python -m benchmarks.delayed_feedback [--quick]        JSON on the last line
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.machine import print_result
from benchmarks.simulated import World, to_target
from fedagent import AsyncStrategy, FedBuff
from fedagent.client.mods import continue_locally_mod
from fedagent.simulation import Links, Lognormal

NODES = 20


@dataclass(frozen=True)
class Setting:
    """One row: a name, how the strategy is built, and what clients do."""

    name: str
    build: Callable[..., AsyncStrategy]
    local_steps: int = 8
    goes_on: bool = False


def buffered(size: int | None = 5, **options: object) -> Callable[..., AsyncStrategy]:
    """Return a FedBuff."""
    return partial(FedBuff, buffer_size=size, concurrency=NODES, **options)


SETTINGS = [
    Setting("reference: 8 steps, no prefetch, 5 updates", buffered()),
    Setting("local_steps=2", buffered(), local_steps=2),
    Setting("local_steps=32", buffered(), local_steps=32),
    Setting("prefetch=1", buffered(prefetch=1)),
    Setting("prefetch=1, goes on locally", buffered(prefetch=1), goes_on=True),
    Setting("prefetch=2", buffered(prefetch=2)),
    Setting("prefetch=2, goes on locally", buffered(prefetch=2), goes_on=True),
    Setting("buffer_size=1", buffered(1)),
    Setting("buffer_size=20", buffered(20)),
    Setting("publish_every_s=2", buffered(None, publish_every_s=2.0)),
    Setting("publish_every_s=10", buffered(None, publish_every_s=10.0)),
    Setting("publish_every_s=40", buffered(None, publish_every_s=40.0)),
    Setting("prefetch=1, local_steps=2", buffered(prefetch=1), local_steps=2),
]
QUICK = ("reference", "prefetch=1, goes", "publish_every_s=10")


def run(setting: Setting, seed: int, target: float) -> dict[str, float | None]:
    """Run one setting to the target."""
    fleet = Lognormal(num_nodes=NODES, sigma=0.5, links=Links(latency_s=4.0), seed=seed)
    mods = (continue_locally_mod,) if setting.goes_on else ()
    world = World(
        fleet,
        seed,
        learning_rate=0.2,
        local_steps=setting.local_steps,
        max_updates=3000,
        target=target,
        mods=mods,
    )
    return to_target(setting.build, world)


def delayed_feedback(quick: bool) -> dict[str, object]:
    """Return what every setting took, averaged over seeds."""
    seeds, target = ([1], 0.8) if quick else ([1, 2, 3], 0.88)
    rows: dict[str, dict[str, float]] = {}
    for setting in [s for s in SETTINGS if not quick or s.name.startswith(QUICK)]:
        outcomes = [run(setting, seed, target) for seed in seeds]
        row = {
            key: statistics.fmean(float("inf") if o[key] is None else o[key] for o in outcomes)
            for key in outcomes[0]
        }
        row["steps_to_target"] = row["updates_to_target"] * setting.local_steps
        rows[setting.name] = row
        print(
            f"{setting.name:44} {row['time_to_target_s']:6.0f} s {row['updates_to_target']:6.0f} "
            f"updates {row['steps_to_target']:7.0f} steps {row['bytes'] / 1e6:6.0f} MB   "
            f"staleness {row['staleness_mean']:5.1f}",
            flush=True,
        )
    return {"seeds": seeds, "target": target, "rows": rows}


def main(arguments: list[str] | None = None) -> None:
    """Run all settings; JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three settings, one seed, 80 %%")
    quick = parser.parse_args(arguments).quick
    print_result("delayed_feedback", delayed_feedback(quick), quick=quick)


if __name__ == "__main__":
    main()
