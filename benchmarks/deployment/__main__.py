"""Round trips and updates per second of a real fleet: Flower's default set-up against ours.

A SuperLink, SuperNodes and a Flower app (`fleet_app`) on one machine. The same
unmodified ClientApp answers at once (``nothing``) or trains the mission's CNN for 8 steps of 32
images (``cnn``).

    flower_default  flower-supernode and Flower's FedAvg
    node            the same FedAvg, but SuperNodes that are ``fedagent node``
    fedagent        ``fedagent node`` and FedBuff; a message waits at every node (prefetch)

Updates are counted, and round trips timed, after the first of every node, for which the app is
installed. Set-ups take turns.

With ``--slow-link`` instead: ``fedagent`` with two nodes, alone and beside a third one on a link
of 125 kB/s, a hundredth of 100 Mbit/s; updates per second of the two, and the ratio.

    python -m benchmarks.deployment [--quick] [--nodes 2,4] [--work nothing,cnn] [--prefetch 1]
    python -m benchmarks.deployment --slow-link
"""

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.deployment.round_trips import Measured, measure, set_ups
from benchmarks.machine import print_result

SLOW_BYTES_PER_S = 125e3


def main(arguments: list[str] | None = None) -> None:
    """Measure every set-up and print the table; JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two nodes that do nothing")
    parser.add_argument("--nodes", default="2,4", help="numbers of SuperNodes")
    parser.add_argument("--work", default="nothing,cnn", help="nothing, cnn")
    parser.add_argument("--slow-link", action="store_true", help="two nodes beside a slow one")
    parser.add_argument("--prefetch", type=int, default=1, help="messages that wait at a node")
    options = parser.parse_args(arguments)
    if options.slow_link:
        beside_a_slow_node(options.prefetch)
        return
    nodes = [2] if options.quick else [int(n) for n in options.nodes.split(",")]
    works = ["nothing"] if options.quick else options.work.split(",")
    console = Console(width=100)
    measured: dict[str, Measured] = {}
    table = Table("set-up", "work", "nodes", "updates/s", "median round trip", "failures", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        for work in works:
            for num_nodes in nodes:
                for set_up in set_ups(options.prefetch, options.quick):
                    key = f"{set_up.name}/{work}/{num_nodes}"
                    start_s = time.monotonic()
                    result = measure(set_up, work, num_nodes, Path(folder, key))
                    measured[key] = result
                    console.print(f"{key}: {time.monotonic() - start_s:.0f} s", style="dim")
                    base = measured[f"flower_default/{work}/{num_nodes}"].updates_per_s
                    table.add_row(
                        set_up.name,
                        work,
                        str(num_nodes),
                        f"{result.updates_per_s:.2f}",
                        f"{result.median_round_trip_s:.2f} s",
                        str(result.failures),
                        f"{result.updates_per_s / base:.1f}x",
                    )
    console.print(table)
    print_result("deployment", report(measured, works[0], nodes[0]), quick=options.quick)


def beside_a_slow_node(prefetch: int) -> None:
    """Print what two nodes do alone and beside a slow one; JSON on the last line."""
    ours = set_ups(prefetch, quick=False)[-1]
    with tempfile.TemporaryDirectory() as folder:
        alone = measure(ours, "cnn", 2, Path(folder, "alone"))
        beside = measure(ours, "cnn", 3, Path(folder, "beside"), SLOW_BYTES_PER_S)
    rates = {"alone": alone.updates_per_s, "beside_a_slow_node": beside.updates_per_s}
    both = f"{rates['alone']:.2f} alone, {rates['beside_a_slow_node']:.2f} beside a slow one"
    print(f"two nodes, updates/s: {both}")
    ratio = beside.updates_per_s / alone.updates_per_s
    print_result("deployment", {"updates_per_s": rates, "ratio": ratio}, slow_link=True)


def report(measured: dict[str, Measured], work: str, num_nodes: int) -> dict[str, object]:
    """Return the headline, of the first kind of work and number of nodes, and everything else."""
    ours = measured[f"fedagent/{work}/{num_nodes}"]
    flowers = measured[f"flower_default/{work}/{num_nodes}"]
    both = {"fedagent": ours, "flower_default": flowers}
    return {
        "updates_per_s": {name: m.updates_per_s for name, m in both.items()},
        "median_round_trip_s": {name: m.median_round_trip_s for name, m in both.items()},
        "ratio": ours.updates_per_s / flowers.updates_per_s,
        "all": {key: vars(m) for key, m in measured.items()},
    }


if __name__ == "__main__":
    main()
