"""Seconds from the command to its end: one Flower app, by ``fedagent run`` and by ``flwr run``.

The app in ``app/`` knows no fedagent: Flower's FedAvg, 20 of 80 nodes in each round, five steps of
SGD per client job on 50 images of packaged MNIST. Each command is a process of its own, and what it
needs to come up is counted: imports, worker processes, data.

    fedagent   ``fedagent run fleet.num_nodes=80 runtime.workers=2``
    flower     ``flwr run . --stream``, two clients at a time; its SuperLink, which a first
               ``flwr run`` starts and which stays, is there already and not counted

Both in turn, again and again; the ratio is the median of each repetition's own.

    python -m benchmarks.end_to_end [--quick] [--models linear,cnn] [--jobs 20,200,2000]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.flower_processes import ROOT, Flower
from benchmarks.machine import print_result, version_of

APP = Path(__file__).parent / "app"
NODES, COHORT = 80, 20

Command = Callable[[str], str]
"""A run config to what the command that ran the app with it has printed."""


def fedagent(run_config: str) -> str:
    """Run the app with ``fedagent run``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        words = (f"fleet.num_nodes={NODES}", "runtime.workers=2", f"output_dir={folder}/run")
        return subprocess.run(
            [sys.executable, "-m", "fedagent", "run", *words, "--run-config", run_config],
            cwd=APP,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        ).stdout


@contextmanager
def flower() -> Iterator[Command]:
    """Keep a SuperLink for simulations; yield what runs the app with ``flwr run`` on it."""
    federation = f"num-supernodes={NODES} client-resources-num-cpus=1 init-args-num-cpus=2"
    with tempfile.TemporaryDirectory() as home:
        flower = Flower(Path(home))
        with flower.superlink("--simulation"):
            yield lambda run_config: flower.run_app(
                APP, run_config, "--federation-config", federation
            )


def seconds(command: Command, model: str, jobs: int) -> float:
    """Return how long a command takes for a number of client jobs.

    Raises
    ------
    RuntimeError
        If it does not do all of them.
    """
    rounds = jobs // COHORT
    begun_s = time.perf_counter()
    log = command(f'model="{model}" num-server-rounds={rounds}')
    wall_s = time.perf_counter() - begun_s
    if log.count(f"Received {COHORT} results and 0 failures") != rounds:
        raise RuntimeError(f"Not every job was done:\n{log}")
    return wall_s


def side_by_side(
    commands: dict[str, Command], model: str, jobs: int, repetitions: int
) -> dict[str, float]:
    """Measure commands in turn; return the median seconds of each, and the median ratio."""
    taken = [
        {name: seconds(command, model, jobs) for name, command in commands.items()}
        for _ in range(repetitions)
    ]
    found = {f"{name}_s": statistics.median(t[name] for t in taken) for name in commands}
    found["ratio"] = statistics.median(t["flower"] / t["fedagent"] for t in taken)
    return {name: round(value, 2) for name, value in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Measure both and print the table; JSON on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20 jobs of the linear model, once")
    parser.add_argument("--models", help="networks, with commas")
    parser.add_argument("--jobs", help=f"client jobs, multiples of {COHORT}, with commas")
    parser.add_argument("--repetitions", type=int, help="default 3; 1 with --quick")
    options = parser.parse_args(arguments)
    repetitions = options.repetitions or (1 if options.quick else 3)
    models = (options.models or ("linear" if options.quick else "linear,cnn")).split(",")
    sizes = (options.jobs or ("20" if options.quick else "20,200,2000")).split(",")
    results: dict[str, dict[str, dict[str, float]]] = {model: {} for model in models}
    print("| model | jobs | fedagent run, s | flwr run, s | ratio |\n|---|---|---|---|---|")
    with flower() as flowers:
        commands = {"fedagent": fedagent, "flower": flowers}
        for model in models:
            for jobs in map(int, sizes):
                found = side_by_side(commands, model, jobs, repetitions)
                results[model][str(jobs)] = found
                row = (model, jobs, found["fedagent_s"], found["flower_s"], found["ratio"])
                print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print_result("end_to_end", {"seconds": results}, repetitions=repetitions, ray=version_of("ray"))


if __name__ == "__main__":
    main()
