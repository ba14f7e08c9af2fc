"""What rules, gate and versions move, against the speed of memory."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from flwr.app import Message, MetricRecord, RecordDict

from benchmarks.aggregation.replies import layers
from fedagent import rules
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
    "HeLoCo": (rules.HeLoCo, 10),
    "Rescaled": (lambda: rules.Rescaled(rules.ASGD()), 5),
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
