"""A fleet of real processes: what is compared, and what is counted."""

import json
import statistics
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.deployment.slow_link import slow_link
from benchmarks.flower_processes import Flower, free_port

APP = Path(__file__).parent / "fleet_app"


@dataclass(frozen=True)
class SetUp:
    """What is compared: a strategy and the program that is every device."""

    name: str
    strategy: str
    program: tuple[str, ...]
    updates_per_node: int
    prefetch: int = 0
    has_journal: bool = False
    codec: str = ""


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
    checkpoints = folder / "checkpoints" if set_up.has_journal else ""
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
            f'results="{results}" checkpoints="{checkpoints}" codec="{set_up.codec}"',
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
