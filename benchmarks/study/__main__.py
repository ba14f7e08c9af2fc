"""How soon our default and our best settings are there, against the best synchronous rounds.

Rounds are Flower's FedAvg that waits for everybody, with deadlines, and with over-selection. In
every cell the soonest of them, chosen *on the test's own curve*, in their favour, is the one to
beat. Ours are the default as ``fedagent run`` has it, and the soonest of a few other settings.
FedBuff and FedAsync as published stand beside. Fleets of equal and unequal speed, with messages
that take no time and with the bandwidth of phones; digits dealt by Dirichlet's law, at random, and
by speed.

    python -m benchmarks.study [--quick] [--seeds 1,2,3] [--jobs 2] [--output FILE] [--figure PNG]

Prints a Markdown table, then JSON on the last line:

default_vs_best_sync         smallest ratio of times over unequal fleets whose messages take no time
default_vs_best_sync_links   the same with the bandwidth of phones
best_vs_best_sync            the first one, of our best settings
equal_ratio                  the ratio where all are equally fast
slow_group                   digits that only slow nodes hold: the default's accuracy, less its own
                             where all are equally fast; the worst fleet
byte_price                   bytes to the target over those of the best rounds; the worst fleet
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.machine import print_result
from benchmarks.study.cells import LIMIT_S, QUICK_LIMIT_S, cells, methods_of, simulate
from benchmarks.study.report import draw, print_table, ratios


def main() -> None:
    """Parse the arguments, run, report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a small network, few settings, 2 min")
    parser.add_argument("--seeds", default="1", help="such as 1,2,3; default 1")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; default 2")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--output", type=Path, help="a file of a JSON line per run; done ones stay")
    parser.add_argument("--figure", type=Path, help="a PNG of the times")
    arguments = parser.parse_args()
    chosen = [cell for cell in cells(arguments.quick) if arguments.only in str(cell)]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    limit_s = QUICK_LIMIT_S if arguments.quick else LIMIT_S

    runs = _read(arguments.output)
    done = {(run["cell"], run["method"], run["seed"]) for run in runs}
    wanted = [
        (cell, method, seed)
        for cell in chosen
        for method in methods_of(cell, arguments.quick)
        for seed in seeds
        if (str(cell), method, seed) not in done
    ]
    begin = time.monotonic()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        awaited = [pool.submit(simulate, *job, limit_s) for job in wanted]
        for number, future in enumerate(as_completed(awaited), start=1):
            run = future.result()
            runs.append(run)
            if arguments.output:
                with arguments.output.open("a") as file:
                    file.write(json.dumps(run) + "\n")
            print(
                f"{number} of {len(wanted)}, {time.monotonic() - begin:.0f} s: {run['cell']}, "
                f"{run['method']}, seed {run['seed']}: {run['time_s'] or 'never'}",
                file=sys.stderr,
                flush=True,
            )
    print_table(runs, chosen)
    if arguments.figure:
        draw(runs, chosen, arguments.figure)
    print_result("study", dict(ratios(runs, chosen)), quick=arguments.quick, seeds=seeds)


def _read(path: Path | None) -> list[dict[str, object]]:
    return list(map(json.loads, path.read_text().splitlines())) if path and path.exists() else []


if __name__ == "__main__":
    main()
