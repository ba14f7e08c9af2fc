"""Clients per second: this engine, a bare PyTorch loop, pfl-research, Flower's Ray simulation.

All train the same networks on the same images with the same steps, see `workload`. Samples
of all engines are taken in turn, so that whatever else the machine does meets all of them; the
table and the JSON on the last line hold medians. ``ratio`` is to the bare loop. CPU milliseconds
per client, of a process and its workers, say more than clients per second on a machine that is
not idle. Engines that are not installed are listed under ``absent``.

    python -m benchmarks.engine [--quick] [--only fedagent,bare] [--models linear,mlp]
"""

import argparse

import torch

from benchmarks.engine.comparison import ENGINES, ONLY_AT_LENGTH, measure, print_table, summarise
from benchmarks.engine.workload import MODELS
from benchmarks.machine import print_result, version_of


def main(arguments: list[str] | None = None) -> None:
    """Measure every engine and print the table; JSON on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a glance, under a minute")
    parser.add_argument("--only", help="engines, with commas; default all, fewer with --quick")
    parser.add_argument("--models", default=",".join(MODELS), help="networks, with commas")
    parser.add_argument("--repetitions", type=int, help="default 5; 1 with --quick")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    repetitions = options.repetitions or (1 if options.quick else 5)
    engines = [name for name in ENGINES if not (options.quick and name in ONLY_AT_LENGTH)]
    samples, absent = measure(
        options.only.split(",") if options.only else engines,
        options.models.split(","),
        repetitions,
        options.quick,
    )
    summary = summarise(samples)
    print_table(summary, absent)
    print_result(
        "engine",
        summary,
        quick=options.quick,
        repetitions=repetitions,
        absent=absent,
        ray=version_of("ray"),
        pfl=version_of("pfl"),
    )


if __name__ == "__main__":
    main()
