"""Round trips and updates per second of a real fleet: Flower's default set-up against ours.

A SuperLink, SuperNodes and a Flower app (`benchmarks/fleet_app`) on one machine. The same
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
import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.flower_processes import Flower, free_port
from benchmarks.slow_link import slow_link

SLOW_BYTES_PER_S = 125e3
APP = Path(__file__).parent / "fleet_app"


@dataclass(frozen=True)
class SetUp:
    """What is compared: a strategy and the program that is every device."""

    name: str
    strategy: str
    program: tuple[str, ...]
    updates_per_node: int
    prefetch: int = 0


@dataclass(frozen=True)
class Measured:
    """What one set-up did with one number of nodes."""

    updates_per_s: float
    median_round_trip_s: float
    failures: int


def set_ups(prefetch: int, quick: bool) -> list[SetUp]:
    """Return what is compared; Flower's gets fewer messages, since each takes seconds."""
    node = ("fedagent", "node")
    few, many = (3, 20) if quick else (6, 60)
    return [
        SetUp("flower_default", "fedavg", ("flower-supernode",), few),
        SetUp("node", "fedavg", node, few),
        SetUp("fedagent", "fedbuff", node, many, prefetch),
    ]


def measure(
    set_up: SetUp, work: str, num_nodes: int, folder: Path, slow_bytes_per_s: float | None = None
) -> Measured:
    """Start a fleet, run the app on it, end it; with a slow link for the last node, if asked."""
    folder.mkdir(parents=True)
    flower, results = Flower(folder), folder / "times.json"
    with ExitStack() as processes:
        processes.enter_context(flower.superlink())
        ports = [flower.port] * num_nodes
        if slow_bytes_per_s is not None:
            ports[-1] = processes.enter_context(slow_link(flower.port, slow_bytes_per_s))
        for port in ports:
            processes.enter_context(
                flower.process(
                    *set_up.program,
                    "--insecure",
                    f"--superlink=127.0.0.1:{port}",
                    f"--port={free_port()}",
                )
            )
        printed = flower.run_app(
            APP,
            f'strategy="{set_up.strategy}" work="{work}" num-nodes={num_nodes} '
            f"num-updates={set_up.updates_per_node * num_nodes} prefetch={set_up.prefetch} "
            f'results="{results}"',
            timeout=900,
        )
        if not results.is_file():
            logs = "\n".join(log.read_text()[-2_000:] for log in folder.glob("*.log"))
            raise RuntimeError(f"{set_up.name}: the app wrote no times.\n{printed}\n{logs}")
    return summarise(json.loads(results.read_text()), without_slowest=slow_bytes_per_s is not None)


def summarise(times: dict[str, list], without_slowest: bool = False) -> Measured:
    """Leave every node's first round trip out, and what was sent before they were over."""
    round_trips = sorted(times["round_trips"], key=lambda trip: trip[2])
    if without_slowest:
        done = Counter(node for node, _, _ in round_trips)
        slowest = min(done, key=done.__getitem__)
        round_trips = [trip for trip in round_trips if trip[0] != slowest]
    first = {}
    for node, _, back_s in round_trips:
        first.setdefault(node, back_s)
    begin_s = max(first.values())
    later = [(sent_s, back_s) for _, sent_s, back_s in round_trips if back_s > begin_s]
    if not later:
        raise RuntimeError(f"No round trip was left to count: {times}.")
    return Measured(
        updates_per_s=len(later) / (later[-1][1] - begin_s),
        median_round_trip_s=statistics.median(
            back_s - sent_s for sent_s, back_s in later if sent_s >= begin_s
        ),
        failures=len(times["failures"]),
    )


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
    print(json.dumps(report(measured, works[0], nodes[0])))


def beside_a_slow_node(prefetch: int) -> None:
    """Print what two nodes do alone and beside a slow one; JSON on the last line."""
    ours = set_ups(prefetch, quick=False)[-1]
    with tempfile.TemporaryDirectory() as folder:
        alone = measure(ours, "cnn", 2, Path(folder, "alone"))
        beside = measure(ours, "cnn", 3, Path(folder, "beside"), SLOW_BYTES_PER_S)
    rates = {"alone": alone.updates_per_s, "beside_a_slow_node": beside.updates_per_s}
    both = f"{rates['alone']:.2f} alone, {rates['beside_a_slow_node']:.2f} beside a slow one"
    print(f"two nodes, updates/s: {both}")
    print(json.dumps({"updates_per_s": rates, "ratio": beside.updates_per_s / alone.updates_per_s}))


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
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("flwr", "torch", "fedagent")},
    }


if __name__ == "__main__":
    main()
