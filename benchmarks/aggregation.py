"""Aggregation against the speed of memory: every rule, the gate, a version, and whole replies.

**Bandwidth.** What a formula has to move, ``moves`` vectors read or written per update, each once
(a mean over a buffer's updates), by the time an update takes; ``to_axpy`` is the ratio to
``x.add_(y, alpha=a)`` of the same size, which moves three vectors, and is timed right before.
Samples of all rows are taken in turn, so that whatever else the machine does meets all of them.

**Replies.** A real run of 50 nodes in a process of its own, see `aggregation_path`: milliseconds
from one reply to the next, in units of an axpy too, and the most memory there was, in models. The
limit is 2 models, and one per distinct version in flight; a rule's own memory comes on top.

    python -m benchmarks.aggregation [--quick] [--sizes 1e6,1e7,1e8] [--rules FedAsync,FedBuff]
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from flwr.app import Message, MetricRecord, RecordDict

from benchmarks.aggregation_path import PATHS, Path, layers, measure_path
from benchmarks.engine_peers import version_of
from fedagent import rules
from fedagent._flower import DRIVER_NODE_ID, identify_process
from fedagent.admission.gate import Admission
from fedagent.model import FlatModel, FrozenVector, ModelSpec
from fedagent.update import Dispatch, Update
from fedagent.wire.records import to_record, views_of

K = 10  # updates per version of buffered rules
NODES = 2  # in tables
# Vectors that an update moves, K of them for a version.
RULES: dict[str, tuple[Callable[[], rules.Rule], float]] = {
    "ASGD": (rules.ASGD, 3),
    "Ringmaster": (rules.Ringmaster, 3),
    "AREA": (partial(rules.AREA, NODES), 3),
    "FedAsync": (rules.FedAsync, 4),
    "DCASGD": (rules.DCASGD, 6),
    "DelayedNesterov": (rules.DelayedNesterov, 5 + (5 - 1) / K),
    "ACE": (partial(rules.ACE, NODES), 6),
    "FedBuff": (partial(rules.FedBuff, K), 3 + (3 - 1) / K),
    "FedNova": (partial(rules.FedNova, K), 3 + (3 - 1) / K),
    "FedStaleWeight": (partial(rules.FedStaleWeight, K), 3 + (3 - 1) / K),
    "Rennala": (partial(rules.Rennala, K), 3 + (3 - 1) / K),
    "PORT": (partial(rules.PORT, K), 6 + (3 - 1) / K),
    "FADAS": (partial(rules.FADAS, K), 3 + (9 - 1) / K),
    "CA2FL": (partial(rules.CA2FL, K, num_nodes=NODES), 4 + (6 + 4 * NODES - 1) / K),
    "Ringleader": (partial(rules.Ringleader, NODES), 16 / 3),
}
QUICK = ("ASGD", "FedAsync", "FedBuff")  # rules at 100 M parameters, if quick


class Bench:
    """One size: the vectors that everything is measured on."""

    def __init__(self, parameters: int) -> None:
        self.arrays = layers(parameters)
        self.payload = to_record(self.arrays)
        self.spec = ModelSpec.of(self.arrays)
        self.model = FlatModel(self.spec, self.arrays)
        self.base = FrozenVector(self.spec, views_of(self.payload))
        self.deltas = [torch.full((parameters,), 1e-3 * i) for i in (1, 2, 3)]
        self.x, self.y = self.deltas[0].clone(), self.deltas[1].clone()

    def axpy(self) -> None:
        """Move three vectors."""
        self.x.add_(self.y, alpha=1e-9)

    def copy(self) -> None:
        """Move two vectors."""
        self.x.copy_(self.y)

    def updates(self, rule: rules.Rule) -> None:
        """Let a rule receive K updates of two nodes."""
        for i in range(K):
            update = Update(
                i % NODES, self.deltas[i % 3], self.base, staleness=0 if i < NODES else 1
            )
            rule.receive(self.model, update)

    def admission(self) -> None:
        """Let the gate make an update of a reply."""
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": self.payload, "metrics": metrics})
        reply = Message(content, reply_to=Message(RecordDict(), 5, "train"))
        dispatch = Dispatch("0", 5, 0, "", sent_at_s=0.0, deadline_s=1.0)
        verdict = Admission().check(reply, dispatch, self.spec, self.base, 0, 0.0)
        assert isinstance(verdict, Update)

    def version(self) -> None:
        """Make a version of the model."""
        to_record(self.model.arrays())


def seconds(action: Callable[[], object], at_least_s: float = 0.02) -> float:
    """Return how long an action takes, as the mean of as many as take long enough to tell."""
    count, begin = 0, time.perf_counter()
    while (taken := time.perf_counter() - begin) < at_least_s or not count:
        action()
        count += 1
    return taken / count


def measure(parameters: int, names: list[str], repetitions: int) -> dict[str, dict[str, float]]:
    """Return GB/s and the ratio to axpy of every row, medians."""
    bench = Bench(parameters)
    samples: dict[str, list[tuple[float, float]]] = {}

    def sample(name: str, moves: float, action: Callable[[], object], updates: int = 1) -> None:
        action()  # what is allocated once is allocated now
        axpy_s, action_s = seconds(bench.axpy), seconds(action) / updates
        speed, axpy_speed = (4e-9 * parameters * m / s for m, s in ((moves, action_s), (3, axpy_s)))
        samples.setdefault(name, []).append((speed, speed / axpy_speed))

    for _ in range(repetitions):
        sample("axpy", 3, bench.axpy)
        sample("copy", 2, bench.copy)
        sample("admission", 3, bench.admission)
        sample("version", 2, bench.version)
        for name in names:
            build, moves = RULES[name]
            sample(f"rule {name}", moves, partial(bench.updates, build()), K)
    return {
        name: {
            "gb_per_s": round(statistics.median(speed for speed, _ in taken), 2),
            "to_axpy": round(statistics.median(ratio for _, ratio in taken), 3),
        }
        for name, taken in samples.items()
    }


def print_tables(bandwidth: dict[str, dict[str, dict]], paths: dict[str, dict[str, Path]]) -> None:
    print("| GB/s (to axpy) |" + "".join(f" {size} |" for size in bandwidth))
    print("|---|" + "---|" * len(bandwidth))
    for name in dict.fromkeys(name for rows in bandwidth.values() for name in rows):
        cells = [
            f"{row['gb_per_s']} ({row['to_axpy']})" if (row := rows.get(name)) else "-"
            for rows in bandwidth.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| whole replies | rule | ms | in axpys | peak, models | versions in flight |")
    print("|---|---|---|---|---|---|")
    for size, by_rule in paths.items():
        for name, path in by_rule.items():
            print(
                f"| {size} | {name} | {path.reply_ms:.1f} | {path.reply_axpys:.1f} | "
                f"{path.peak_models:.2f} | {path.versions} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a glance, under a minute")
    parser.add_argument("--sizes", default="1e6,1e7,1e8", help="parameters, with commas")
    parser.add_argument("--rules", default=",".join(RULES), help="with commas")
    parser.add_argument("--repetitions", type=int, help="default 5; 2 with --quick")
    options = parser.parse_args()
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    repetitions = options.repetitions or (2 if options.quick else 5)
    bandwidth, paths = {}, {}
    for size in options.sizes.split(","):
        parameters = int(float(size))
        is_large = parameters >= 10**8
        is_glance = is_large and options.quick
        names = [n for n in options.rules.split(",") if n in QUICK or not is_glance]
        if is_large or not options.quick:
            paths[size] = {name: measure_path(parameters, name) for name in PATHS}
        bandwidth[size] = measure(parameters, names, 1 if is_glance else repetitions)
    print_tables(bandwidth, paths)
    about = {
        "benchmark": "aggregation",
        "quick": options.quick,
        "repetitions": repetitions,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    about |= {name: version_of(name) for name in ("torch", "numpy", "flwr")}
    replies = {
        size: {name: vars(path) for name, path in by_rule.items()}
        for size, by_rule in paths.items()
    }
    print(json.dumps(about | {"bandwidth": bandwidth, "replies": replies}))


if __name__ == "__main__":
    main()
