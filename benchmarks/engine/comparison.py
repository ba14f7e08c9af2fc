"""All engines on the same work, sampled in turn."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.engine.ours import fedagent, fedagent_vectorised
from benchmarks.engine.peers import FlowerRay, PeerMissingError, pfl
from benchmarks.engine.workload import COHORT, NODES, Sample, bare, bare_side_by_side
from fedagent.simulation import Equal, Lognormal

Measure = Callable[[str, int], Sample]

ENGINES: dict[str, Callable[[], Measure]] = {
    "bare": lambda: bare,
    "bare_2_processes": lambda: bare_side_by_side,
    "pfl": lambda: pfl,
    "fedagent": lambda: fedagent(workers=0),
    "fedagent_1_worker": lambda: fedagent(workers=1),
    "fedagent_2_workers": lambda: fedagent(workers=2),
    "fedagent_vectorised": lambda: fedagent_vectorised(Equal(num_nodes=NODES)),
    "fedagent_vectorised_lognormal": lambda: fedagent_vectorised(Lognormal(num_nodes=NODES)),
    "flower_ray": FlowerRay,
}
ONLY_AT_LENGTH = {"fedagent_vectorised_lognormal"}
WARM_UP_THEMSELVES = {"flower_ray"}
CLIENTS = {"linear": 1200, "mlp": 800, "cnn": 160}  # per sample; a tenth for Ray, and if quick


def measure(
    names: list[str], models: list[str], repetitions: int, quick: bool
) -> tuple[dict[str, dict[str, list[Sample]]], dict[str, str]]:
    """Return the samples by model and engine, and why engines are absent."""
    absent: dict[str, str] = {}
    samples: dict[str, dict[str, list[Sample]]] = {m: {} for m in models}
    for repetition in range(-1, repetitions):  # the first warms up and does not count
        for name in (n for n in names if n not in absent):
            if repetition < 0 and name in WARM_UP_THEMSELVES:
                continue
            try:
                with closing_any(ENGINES[name]()) as engine:
                    for model in models:
                        clients = _clients(name, model, quick or repetition < 0)
                        sample = engine(model, clients)
                        if repetition >= 0:
                            samples[model].setdefault(name, []).append(sample)
            except PeerMissingError as error:
                absent[name] = str(error)
    return samples, absent


@contextmanager
def closing_any(engine: Measure) -> Iterator[Measure]:
    """Close an engine afterwards, if it can be: Ray's processes take time also when they idle."""
    try:
        yield engine
    finally:
        if isinstance(engine, FlowerRay):
            engine.close()


def _clients(name: str, model: str, quick: bool) -> int:
    """Return how many clients make a sample: whole cohorts, in each of two processes too."""
    clients = CLIENTS[model] // (10 if quick else 1) // (10 if name == "flower_ray" else 1)
    least = 2 * COHORT if name == "bare_2_processes" else COHORT
    return max(least, clients // least * least)


def summarise(samples: dict[str, dict[str, list[Sample]]]) -> dict[str, dict[str, dict]]:
    """Return medians by model and engine; ratios are medians of the repetitions' ratios."""
    units = ("clients_per_s", "ratio", "cpu_ms", "own_cpu_ms")
    summary: dict[str, dict[str, dict]] = {unit: {} for unit in units}
    for model, by_engine in samples.items():
        for part in summary.values():
            part[model] = {}
        for name, taken in by_engine.items():
            speeds = [s.clients / s.wall_s for s in taken]
            summary["clients_per_s"][model][name] = round(statistics.median(speeds), 1)
            for unit, field in (("cpu_ms", "cpu_s"), ("own_cpu_ms", "own_cpu_s")):
                used = [(getattr(s, field), s.clients) for s in taken]
                if all(seconds is not None for seconds, _ in used):
                    ms = statistics.median(1e3 * seconds / clients for seconds, clients in used)
                    summary[unit][model][name] = round(ms, 3)
            if reference := by_engine.get("bare"):
                ratios = [v * b.wall_s / b.clients for v, b in zip(speeds, reference, strict=False)]
                summary["ratio"][model][name] = round(statistics.median(ratios), 3)
    return summary


def print_table(summary: dict[str, dict[str, dict]], absent: dict[str, str]) -> None:
    print("| model | engine | clients/s | to bare | CPU ms per client | its own process's |")
    print("|---|---|---|---|---|---|")
    for model, speeds in summary["clients_per_s"].items():
        for name, speed in speeds.items():
            others = (summary[k][model].get(name, "-") for k in ("ratio", "cpu_ms", "own_cpu_ms"))
            print(f"| {model} | {name} | {speed} | {' | '.join(map(str, others))} |")
    for name, reason in absent.items():
        print(f"\n{name} is absent: {reason}")
