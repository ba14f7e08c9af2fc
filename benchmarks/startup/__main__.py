"""How long until a run is under way, beside what it cannot do without.

    run       `fedagent run` with logistic regression and one update: the configuration, the data,
              an evaluation, twenty clients at work in worker processes, the files of a run
    imports   `python -c "import torch, flwr.app"`: what any program with PyTorch and Flower needs

Both are processes of their own, one after the other, again and again. The first of each, which
reads from the disk what the others find in memory, is not counted. The ratio is the median of each
repetition's own. CPU seconds are those of a process and its children, on all cores.

    python -m benchmarks.startup [--quick] [--repetitions 7]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import print_result

ROOT = Path(__file__).parents[2]
IMPORTS = ("-c", "import torch, flwr.app")
SPARED = ("display=false", "page=false")  # what a page takes, benchmarks.page says
RUN = ("-m", "fedagent", "run", "app.model=linear", "stopping.max_updates=1", *SPARED)


@dataclass(frozen=True)
class Sample:
    """What one process took.

    Attributes
    ----------
    wall_s : seconds from its start to its end.
    cpu_s : seconds of work, its children's included.
    """

    wall_s: float
    cpu_s: float


def measure(*arguments: str) -> Sample:
    """Run Python with `arguments` in the root of the repository.

    Raises
    ------
    CalledProcessError
        If it fails.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"}
    before = os.times()
    begin_s = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    wall_s, after = time.perf_counter() - begin_s, os.times()
    cpu_s = after.children_user + after.children_system
    return Sample(wall_s, cpu_s - before.children_user - before.children_system)


def side_by_side(repetitions: int) -> dict[str, list[Sample]]:
    """Measure both in turn, after one of each that is not counted."""
    samples: dict[str, list[Sample]] = {"run": [], "imports": []}
    with tempfile.TemporaryDirectory() as folder:
        for repetition in range(-1, repetitions):
            output = f"output_dir={folder}/{repetition}"
            # Hydra would write its own folder into the working directory.
            hydra = (f"hydra.run.dir={folder}/hydra", "hydra.output_subdir=null")
            pair = {"run": measure(*RUN, output, *hydra), "imports": measure(*IMPORTS)}
            if repetition >= 0:
                for name, sample in pair.items():
                    samples[name].append(sample)
    return samples


def summarise(samples: dict[str, list[Sample]]) -> dict[str, float]:
    """Return the medians, and the medians of the repetitions' ratios."""
    found = {}
    for unit in ("wall_s", "cpu_s"):
        taken = {name: [getattr(s, unit) for s in by_name] for name, by_name in samples.items()}
        found |= {f"{name}_{unit}": statistics.median(values) for name, values in taken.items()}
        pairs = zip(taken["run"], taken["imports"], strict=True)
        found["ratio" if unit == "wall_s" else "cpu_ratio"] = statistics.median(
            run / imports for run, imports in pairs
        )
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="once, after one that is not counted")
    parser.add_argument("--repetitions", type=int, help="default 7; 1 with --quick")
    options = parser.parse_args()
    repetitions = options.repetitions or (1 if options.quick else 7)
    found = summarise(side_by_side(repetitions))
    print("| | s | CPU s |\n|---|---|---|")
    for name in ("run", "imports"):
        print(f"| {name} | {found[f'{name}_wall_s']} | {found[f'{name}_cpu_s']} |")
    print(f"| ratio | {found['ratio']} | {found['cpu_ratio']} |")
    print_result("startup", found, repetitions=repetitions)


if __name__ == "__main__":
    main()
