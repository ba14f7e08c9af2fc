"""How soon every rule and scheduler reaches a target: on a quadratic and on digits.

Three parts, each with learning rates tuned per method on a grid, on a seed of its own:

quadratic   eight fleets, 100 nodes always busy: slowdown against equal speeds beside the limit
            formula of arXiv 2305.12387, and T/T*, where T* = min over B of rounds(B) t(B) is the
            time ideal minibatches would need
digits      packaged MNIST on 100 nodes, 20 at work: IID, Dirichlet(0.1), and classes that only slow
            nodes hold; lognormal speeds, equal speeds as the control; FedAvg as the baseline
schedulers  digits on a fleet of two classes, one 25 times slower: who wastes how much of its time

    python -m benchmarks.convergence [--quick] [--only digits] [--figure FILE]

Prints Markdown tables, then JSON on the last line. The full run takes three quarters of an hour on
two cores, --quick less than a minute.
"""

import argparse
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from benchmarks import quadratic
from benchmarks.convergence_report import Result, draw, plain, print_tables
from benchmarks.digits import PARTITIONS, Digits, slow_accuracy
from benchmarks.loop import Budget, Trace, asynchronous, synchronous
from fedagent import rules
from fedagent.rules import Rule
from fedagent.scheduling import DyLU, FedCompass, Scheduler, Uniform
from fedagent.staleness import delay_adaptive, polynomial

NODES, CONCURRENCY, BUFFER, LOCAL_STEPS, UPDATES, TARGET = 100, 20, 10, 8, 2000, 0.88
TUNING_SEEDS = (1000, 1001, 1002)
CLIENT_RATES = (0.05, 0.1, 0.2, 0.4, 0.8)

MakeRule = Callable[[float], Rule]
"""Server learning rate -> rule."""


@dataclass(frozen=True)
class Method:
    """A rule, the server learning rates that are tried, and how many nodes it keeps at work."""

    rule: MakeRule
    server_rates: tuple[float, ...] = (1.0,)
    concurrency: int = CONCURRENCY

    @property
    def updates(self) -> int:
        """Updates a run may take: the same number for each slot."""
        return UPDATES * self.concurrency // CONCURRENCY


SMALL = (0.05, 0.1, 0.2)  # rules that step on every arrival, 1 / concurrency and around
DIGITS: dict[str, Method] = {
    "fedasync": Method(rules.FedAsync, (0.1, 0.3, 0.6)),
    "fedbuff": Method(lambda rate: rules.FedBuff(BUFFER, rate), (0.5, 1.0)),
    "asgd": Method(rules.ASGD, SMALL),
    "delay_adaptive": Method(
        lambda rate: rules.ASGD(rate, partial(delay_adaptive, concurrency=CONCURRENCY)), SMALL
    ),
    "ringmaster": Method(lambda rate: rules.Ringmaster(CONCURRENCY, rate), SMALL),
    "rennala": Method(lambda rate: rules.Rennala(BUFFER, rate)),
    "malenia": Method(lambda rate: rules.Malenia(NODES, None, rate), concurrency=NODES),
    "ringleader": Method(lambda rate: rules.Ringleader(NODES, rate), SMALL, concurrency=NODES),
    "delayed_nesterov": Method(
        lambda rate: rules.DelayedNesterov(CONCURRENCY, 0.9, rate), (0.3, 0.7, 1.0)
    ),
    "dc_asgd": Method(lambda rate: rules.DCASGD(server_learning_rate=rate), SMALL),
    "ca2fl": Method(lambda rate: rules.CA2FL(BUFFER, rate, NODES), (0.5, 1.0)),
    "ace": Method(lambda rate: rules.ACE(NODES, rate), (0.02, 0.05, 0.1)),
    "aced": Method(lambda rate: rules.ACE(NODES, rate, 100), (0.02, 0.05, 0.1)),
    "area": Method(lambda _: rules.AREA(NODES)),
    "fadas": Method(lambda rate: rules.FADAS(5, rate), (1e-3, 3e-3, 1e-2)),
    "port": Method(lambda _: rules.PORT(BUFFER)),
    "fedstaleweight": Method(lambda rate: rules.FedStaleWeight(BUFFER, rate), (0.5, 1.0)),
}
QUADRATIC: dict[str, Callable[[], Rule]] = {
    "asgd": rules.ASGD,
    "delay_adaptive": lambda: rules.ASGD(
        staleness=partial(delay_adaptive, concurrency=quadratic.NODES)
    ),
    "ringmaster": lambda: rules.Ringmaster(quadratic.NODES),
    "rennala": lambda: rules.Rennala(quadratic.BATCH),
    "fedbuff": lambda: rules.FedBuff(BUFFER, staleness=polynomial),
    "dc_asgd": rules.DCASGD,
}
SCHEDULERS: dict[str, Callable[[int, int], tuple[Scheduler, Rule]]] = {
    "uniform": lambda seed, k: (Uniform(20, seed=seed), rules.FedBuff(k)),
    "dylu": lambda seed, k: (DyLU(50, 2, seed=seed), rules.FedBuff(k)),
    "dylu + fednova": lambda seed, k: (DyLU(50, 2, seed=seed), rules.FedNova(k)),
    "fedcompass": lambda seed, k: (FedCompass(4, 100, seed=seed), rules.FedBuff(k)),
    "fedcompass + fednova": lambda seed, k: (FedCompass(4, 100, seed=seed), rules.FedNova(k)),
}
"""(seed, buffer size) -> scheduler and rule."""


# --- one cell of a table: a method, tuned, then averaged over seeds -------------------------------


def tune(
    run: Callable[[tuple[float, ...], int, float], Trace],
    grid: Iterable[tuple[float, ...]],
    seeds: Iterable[int],
) -> tuple[float, ...]:
    """Return the point of the grid that reaches the target first; else the one that ends best.

    ``run(point, seed, limit_s)`` may give up after `limit_s`: others were faster.
    """
    best, best_s, best_score = None, math.inf, -math.inf
    for point in grid:
        total_s = 0.0
        for seed in seeds:
            trace = run(point, seed, best_s - total_s)
            total_s += trace.time_to_target_s
            if total_s >= best_s:
                break
        if total_s < best_s:
            best, best_s = point, total_s
        elif math.isinf(best_s) and (best is None or trace.final_score > best_score):
            best, best_score = point, trace.final_score
    assert best is not None, "the grid is empty"
    return best


def quadratic_cell(fleet: str, name: str, starts_together: bool, seeds: int, quick: bool) -> Result:
    """Return the time of one rule on one fleet; nodes begin together, or at random moments."""
    seconds = quadratic.FLEETS[fleet](np.random.default_rng(1))
    problem = quadratic.Quadratic()

    def run(point: tuple[float, ...], seed: int, limit_s: float = math.inf) -> Trace:
        return asynchronous(
            problem,
            QUADRATIC[name](),
            Uniform(seed=seed),
            seconds,
            concurrency=quadratic.NODES,
            local_steps=1,
            learning_rate=point[0],
            seed=seed,
            budget=Budget(10_000, limit_s, at_target=True),
            phases=None
            if starts_together
            else 1.0 - np.random.default_rng(seed).random(quadratic.NODES),
        )

    # Likely rates first: what comes later is given up as soon as it is slower.
    exponents = (-7, -5, 0) if quick else (-5, -4, -6, -3, -7, -2, -8, -1, 0, 1, -9)
    point = tune(run, [(2.0**k,) for k in exponents], TUNING_SEEDS[:1])
    if not quick:
        fine = [(point[0] * 2.0 ** (k / 4),) for k in (0, -1, 1, -2, 2, -3, 3)]
        point = tune(run, fine, TUNING_SEEDS)
    traces = [run(point, seed) for seed in range(1, seeds + 1)]
    return {
        "time_s": _mean(t.time_to_target_s for t in traces),
        "updates": _mean(t.updates_to_target for t in traces),
        "learning_rate": point[0],
    }


def minibatch_cell(seeds: int, quick: bool) -> dict[int, float]:
    """Return rounds(B), for the B that T* is the minimum over."""
    rates = [2.0 ** (k / 2) for k in (range(-2, 4, 2) if quick else range(-6, 5))]
    batches = (1, 5, 20, 100) if quick else (1, 2, 5, 10, 20, 50, 100, 200, 500)
    rounds = {}
    for batch in batches:
        runs = partial(quadratic.minibatch_rounds, batch)
        rate = min(rates, key=lambda r: sum(runs(r, seed) for seed in TUNING_SEEDS))
        rounds[batch] = _mean(runs(rate, seed) for seed in range(1, seeds + 1))
    return rounds


def digits_cell(partition: str, name: str, seeds: int, quick: bool) -> Result:
    """Return how one method fares with lognormal speeds, and how soon it is with equal ones."""
    updates = 400 if quick else DIGITS[name].updates if name in DIGITS else UPDATES

    def run(point: tuple[float, ...], seed: int, budget: Budget, is_equal: bool = False) -> Trace:
        client_rate, server_rate = point
        seconds = speeds("equal" if is_equal else "lognormal", seed)
        problem = Digits(partition, seconds, seed, 0.8 if quick else TARGET)
        if name == "fedavg":
            trace = synchronous(
                problem,
                seconds,
                cohort=CONCURRENCY,
                local_steps=LOCAL_STEPS,
                learning_rate=client_rate,
                seed=seed,
                budget=budget,
            )
        else:
            method = DIGITS[name]
            trace = asynchronous(
                problem,
                method.rule(server_rate),
                Uniform(seed=seed),
                seconds,
                concurrency=method.concurrency,
                local_steps=LOCAL_STEPS,
                learning_rate=client_rate,
                seed=seed,
                budget=budget,
            )
        return trace

    server_rates = DIGITS[name].server_rates if name in DIGITS else (1.0,)
    grid = [(c, s) for s in server_rates for c in ((0.2,) if quick else CLIENT_RATES)]
    point = tune(
        lambda p, seed, limit_s: run(p, seed, Budget(updates, limit_s, True, 10)),
        grid[:1] if quick else grid,
        TUNING_SEEDS[:1],
    )
    traces = [run(point, seed, Budget(updates, score_every=10)) for seed in range(1, seeds + 1)]
    equal = [
        run(point, seed, Budget(updates, at_target=True, score_every=10), is_equal=True)
        for seed in range(1, seeds + 1)
    ]
    time_s = _mean(t.time_to_target_s for t in traces)
    equal_s = _mean(t.time_to_target_s for t in equal)
    return {
        "time_s": time_s,
        "reached": sum(math.isfinite(t.time_to_target_s) for t in traces),
        "updates": _mean(t.updates_to_target for t in traces),
        "equal_time_s": equal_s,
        "slowdown": _ratio(time_s, equal_s),
        "end_s": _mean(t.statistics.now_s for t in traces),
        "accuracy": _mean(t.final_score for t in traces),
        "slow_accuracy": _mean(slow_accuracy(t.vector) for t in traces),
        "staleness_mean": _mean(t.statistics.staleness_mean for t in traces),
        "staleness_max": max(t.statistics.staleness_max for t in traces),
        "client_learning_rate": point[0],
        "server_learning_rate": point[1],
        "curves": [t.curve for t in traces],
    }


def scheduler_cell(name: str, buffer_size: int, seeds: int, quick: bool) -> Result:
    """Return the waste and the time of one scheduler on the fleet of two classes."""

    def run(rate: float, seed: int, budget: Budget) -> Trace:
        scheduler, rule = SCHEDULERS[name](seed, buffer_size)
        seconds = speeds("two-class", seed)
        return asynchronous(
            Digits("iid", seconds, seed, 0.8 if quick else TARGET),
            rule,
            scheduler,
            seconds,
            concurrency=CONCURRENCY,
            local_steps=1,
            learning_rate=rate,
            seed=seed,
            budget=budget,
        )

    horizon_s = 2000.0 if quick else 10_000.0
    (rate,) = tune(
        lambda point, seed, limit_s: run(
            point[0], seed, Budget(10_000, min(limit_s, horizon_s), at_target=True)
        ),
        [(rate,) for rate in ((0.2,) if quick else CLIENT_RATES)],
        TUNING_SEEDS[:1],
    )
    budget = Budget(10_000, horizon_s, score_every=10)
    traces = [run(rate, seed, budget) for seed in range(1, seeds + 1)]
    return {
        "time_s": _mean(t.time_to_target_s for t in traces),
        "updates": _mean(t.updates_to_target for t in traces),
        "wasted": _mean(
            t.statistics.wasted_s / (t.statistics.concurrency * t.statistics.now_s) for t in traces
        ),
        "utilisation": _mean(t.statistics.utilisation for t in traces),
        "client_learning_rate": rate,
    }


def speeds(fleet: str, seed: int) -> np.ndarray:
    """Return the (100,) seconds per local step of a fleet."""
    return quadratic.FLEETS[fleet](np.random.default_rng(seed))


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _ratio(numerator: float, denominator: float) -> float:
    """Return the ratio of two times; NaN if the second was never reached."""
    return numerator / denominator if math.isfinite(denominator) else math.nan


# --- the three parts ------------------------------------------------------------------------------


class Workers:
    """Runs cells on every core, with a bar on the terminal."""

    def __init__(self, seeds: int, quick: bool) -> None:
        self.seeds, self.quick = seeds, quick
        self._pool = ProcessPoolExecutor(os.cpu_count(), initializer=_one_thread)
        self._console = Console(stderr=True)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def table(self, title: str, cell: Callable[..., Result], keys: list[tuple]) -> dict:
        """Return {key: cell(*key)}."""
        futures = {k: self._pool.submit(cell, *k, self.seeds, self.quick) for k in keys}
        bar = track(futures.items(), title, console=self._console)
        return {key: future.result() for key, future in bar}


def _one_thread() -> None:
    torch.set_num_threads(1)
    np.seterr(over="ignore", invalid="ignore")  # rates that diverge are part of the grid


def run_quadratic(workers: Workers) -> Result:
    """Return {fleet: {method: time_s, slowdown, ratio = T/T*}}.

    T* lets all nodes begin together, so T is measured that way. The limit formula counts in
    continuous time, where equal nodes do not finish in the same instant for ever: the slowdown
    is that of nodes that begin at random moments.
    """
    fleets = ["equal", "lognormal"] if workers.quick else list(quadratic.FLEETS)
    names = ["asgd", "delay_adaptive", "rennala"] if workers.quick else list(QUADRATIC)
    rounds = minibatch_cell(workers.seeds, workers.quick)
    keys = [(fleet, name, together) for fleet in fleets for name in names for together in (0, 1)]
    cells = workers.table("quadratic", quadratic_cell, keys)
    result: Result = {}
    for fleet in fleets:
        seconds = quadratic.FLEETS[fleet](np.random.default_rng(1))
        best_s = min(r * quadratic.batch_time(b, seconds) for b, r in rounds.items())
        rows = {"limit": {"time_s": quadratic.limit_formula(seconds)}}
        rows["minibatch"] = {"time_s": rounds[quadratic.NODES] * float(seconds.max())}
        rows |= {
            name: cells[fleet, name, 0] | {"together_time_s": cells[fleet, name, 1]["time_s"]}
            for name in names
        }
        for name, row in rows.items():
            row["slowdown"] = _ratio(
                row["time_s"], (result or {"equal": rows})["equal"][name]["time_s"]
            )
            if name != "limit":
                row["ratio"] = row.get("together_time_s", row["time_s"]) / best_s
        result[fleet] = rows
    return result


def run_digits(workers: Workers) -> Result:
    """Return {partition: {method: what `digits_cell` says, and its speed-up over FedAvg}}."""
    partitions = ["labels by speed"] if workers.quick else list(PARTITIONS)
    names = ["fedavg", *(["fedbuff", "ca2fl"] if workers.quick else DIGITS)]
    cells = workers.table("digits", digits_cell, [(p, n) for p in partitions for n in names])
    result = {p: {n: cells[p, n] for n in names} for p in partitions}
    for rows in result.values():
        for row in rows.values():
            row["speedup"] = _ratio(rows["fedavg"]["time_s"], row["time_s"])
            row["equal_speedup"] = _ratio(rows["fedavg"]["equal_time_s"], row["equal_time_s"])
    return result


def run_schedulers(workers: Workers) -> Result:
    """Return {scheduler: what `scheduler_cell` says}."""
    names = ["uniform", "fedcompass"] if workers.quick else list(SCHEDULERS)
    keys = [(name, size) for size in (BUFFER, CONCURRENCY) for name in names]
    cells = workers.table("schedulers", scheduler_cell, keys)
    return {f"{name}, K = {size}": cells[name, size] for name, size in keys}


PARTS = {"quadratic": run_quadratic, "digits": run_digits, "schedulers": run_schedulers}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a glance at each part: 1 minute")
    parser.add_argument("--only", choices=list(PARTS), help="run one part")
    parser.add_argument("--seeds", type=int, help="default 3; 1 with --quick")
    parser.add_argument("--figure", type=Path, default=Path("outputs/convergence.png"))
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    _one_thread()
    with Workers(seeds, options.quick) as workers:
        results = {
            name: run(workers) for name, run in PARTS.items() if options.only in (None, name)
        }
    print_tables(results)
    if "digits" in results:
        draw(results, options.figure)
        print(f"Figure: {options.figure}\n")
    about = {
        "benchmark": "convergence",
        "quick": options.quick,
        "seeds": seeds,
        "target": TARGET,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(about | plain(results)))


if __name__ == "__main__":
    main()
