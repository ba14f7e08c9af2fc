"""Ten thousand nodes that really train, beside a hundred: clients per second, and memory.

A tenth of the nodes is at work at any moment, on devices of lognormal speeds, and a tenth of those
makes a version of FedBuff. A client job is the one of `benchmarks.engine`, in worker processes;
what a node trains on is made when it is asked for. Every population has a process of its own.

The first jobs, three for everyone who is at work, are not counted. Memory is that of the server and
its workers. Its slope is the least-squares one over the second half of the jobs: until then nodes
come to work for the first time, and slow ones still hold the versions that they began with.

    python -m benchmarks.population [--quick] [--models linear,cnn] [--nodes 100,10000]
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from benchmarks.engine.workload import Sample, Stopwatch, client_app, module
from benchmarks.machine import print_result
from fedagent import FedBuff, run_simulation
from fedagent.callbacks import Callback
from fedagent.simulation import Lognormal, Runtime
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates, RunEnd

JOBS = {"linear": 100_000, "cnn": 10_000}
QUICK = {"linear": 2_000, "cnn": 100}
WARM_UP = 3  # jobs for each of those that are at work


class Meter(Callback):
    """Reads clocks and memory with every version after the first `warm_up` updates."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self.memory: list[tuple[int, float]] = []
        self.sample: Sample
        self.nodes = 0

    def on_version(self, statistics: Statistics) -> None:
        """Read them."""
        if statistics.num_updates >= self._warm_up:
            if not self.memory:
                self._watch = Stopwatch()
            self.memory.append((statistics.num_updates, resident_mb()))

    def on_end(self, statistics: Statistics, end: RunEnd, arrays: Callable) -> None:
        """Keep what was used."""
        self.sample = self._watch.sample(statistics.num_updates - self.memory[0][0])
        self.nodes = len(statistics.weights)


def resident_mb() -> float:
    """Return the memory of this process and its workers, what they share counted once for each."""
    pages = 0
    for process in ("self", *(str(child.pid) for child in active_children())):
        pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(name: str, nodes: int, jobs: int, workers: int) -> dict[str, float]:
    """Train `jobs` client jobs of a population in this process; return what was measured."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    at_work = nodes // 10
    meter = Meter(WARM_UP * at_work)
    strategy = FedBuff(
        buffer_size=at_work // 10,
        concurrency=at_work,
        fraction_evaluate=0.0,
        callbacks=[meter],
        stopping=[MaxUpdates(WARM_UP * at_work + jobs)],
    )
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(
            grid,
            ArrayRecord(module(name).state_dict()),
            num_rounds=1_000_000,
            timeout=1e9,
            train_config=ConfigRecord({"model": name}),
        )

    run_simulation(
        server, client_app, fleet=Lognormal(num_nodes=nodes), runtime=Runtime(workers=workers)
    )
    sample, (updates, memory) = meter.sample, np.array(meter.memory[len(meter.memory) // 2 :]).T
    return {
        "clients": sample.clients,
        "clients_per_s": round(sample.clients / sample.wall_s, 1),
        "cpu_ms": round(1e3 * (sample.cpu_s or 0.0) / sample.clients, 3),
        "server_cpu_ms": round(1e3 * (sample.own_cpu_s or 0.0) / sample.clients, 3),
        "nodes_that_worked": meter.nodes,
        "mb": round(memory[-1], 1),
        "mb_per_1000_jobs": round(1e3 * float(np.polyfit(updates, memory, 1)[0]), 3),
    }


def measure_apart(name: str, nodes: int, jobs: int, workers: int) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.population", "--alone", "--models", name]
    command += ["--nodes", str(nodes), "--jobs", str(jobs), "--workers", str(workers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> None:
    """Measure every population and print the table; JSON on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2,000 jobs, 100 of the CNN")
    parser.add_argument("--models", default="linear,cnn", help="networks, with commas")
    parser.add_argument("--nodes", default="100,10000", help="with commas, the first to compare to")
    parser.add_argument("--jobs", type=int, help="default 100,000; 10,000 of the CNN")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="in this process")
    options = parser.parse_args(arguments)
    models, populations = options.models.split(","), list(map(int, options.nodes.split(",")))
    if options.alone:
        print(json.dumps(measure(models[0], populations[0], options.jobs, options.workers)))
        return
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in models}
    print(
        "| model | nodes | clients/s | ratio | CPU ms per client | server's | MB | MB/1,000 jobs |"
    )
    print("|" + "---|" * 8)
    for name in models:
        jobs = options.jobs or (QUICK if options.quick else JOBS)[name]
        for nodes in populations:
            found = measure_apart(name, nodes, jobs, options.workers)
            first = results[name].setdefault(str(populations[0]), found)
            found["ratio"] = round(found["clients_per_s"] / first["clients_per_s"], 3)
            found["cpu_ratio"] = round(first["cpu_ms"] / found["cpu_ms"], 3)
            results[name][str(nodes)] = found
            columns = (
                "clients_per_s",
                "ratio",
                "cpu_ms",
                "server_cpu_ms",
                "mb",
                "mb_per_1000_jobs",
            )
            row = (name, f"{nodes:,}", *(found[column] for column in columns))
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print_result("population", {"populations": results}, workers=options.workers, seeds=[0])


if __name__ == "__main__":
    main()
