"""The three parts of the comparison: quadratic, digits, schedulers."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from benchmarks.convergence import quadratic
from benchmarks.convergence.cells import (
    digits_cell,
    minibatch_cell,
    quadratic_cell,
    ratio,
    scheduler_cell,
)
from benchmarks.convergence.digits import PARTITIONS
from benchmarks.convergence.methods import (
    BASELINES,
    BUFFER,
    CONCURRENCY,
    DIGITS,
    QUADRATIC,
    SCHEDULERS,
)
from benchmarks.convergence.report import Result


class Workers:
    """Runs cells on every core, with a bar on the terminal."""

    def __init__(self, seeds: int, quick: bool) -> None:
        self.seeds, self.quick = seeds, quick
        self._pool = ProcessPoolExecutor(os.cpu_count(), initializer=one_thread)
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


def one_thread() -> None:
    """Let a process compute alone: there are as many as cores."""
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
            row["slowdown"] = ratio(
                row["time_s"], (result or {"equal": rows})["equal"][name]["time_s"]
            )
            if name != "limit":
                row["ratio"] = row.get("together_time_s", row["time_s"]) / best_s
        result[fleet] = rows
    return result


def run_digits(workers: Workers) -> Result:
    """Return {partition: {method: what `digits_cell` says, and its speed-up over FedAvg}}."""
    partitions = ["labels by speed"] if workers.quick else list(PARTITIONS)
    names = ["fedavg", "fedbuff", "ca2fl"] if workers.quick else [*BASELINES, *DIGITS]
    cells = workers.table("digits", digits_cell, [(p, n) for p in partitions for n in names])
    result = {p: {n: cells[p, n] for n in names} for p in partitions}
    for rows in result.values():
        for row in rows.values():
            row["speedup"] = ratio(rows["fedavg"]["time_s"], row["time_s"])
            row["equal_speedup"] = ratio(rows["fedavg"]["equal_time_s"], row["equal_time_s"])
    return result


def run_schedulers(workers: Workers) -> Result:
    """Return {scheduler: what `scheduler_cell` says}."""
    names = ["uniform", "fedcompass"] if workers.quick else list(SCHEDULERS)
    keys = [(name, size) for size in (BUFFER, CONCURRENCY) for name in names]
    cells = workers.table("schedulers", scheduler_cell, keys)
    return {f"{name}, K = {size}": cells[name, size] for name, size in keys}


PARTS = {"quadratic": run_quadratic, "digits": run_digits, "schedulers": run_schedulers}
