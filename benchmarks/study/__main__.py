"""How soon our default and our best settings are there, against the best synchronous rounds.

Rounds are Flower's FedAvg that waits for everybody, with deadlines, with over-selection, and its
FedAdam with a deadline. In every cell and with every seed the soonest of them, chosen *on the
test's own curve*, in their favour, is the one to beat. Ours are the default as ``fedagent run`` has
it, and the soonest of it and a few other settings. FedBuff and FedAsync as published stand beside.
Fleets of equal and unequal speed, with messages that take no time and with the bandwidth of phones;
devices that come and go; digits dealt by Dirichlet's law, at random, and by speed; two other
applications.

A run ends where it is there, or can no longer be the soonest. With further seeds only those rounds
are run that came close with the first one.

    python -m benchmarks.study [--quick] [--seeds 1,2,3] [--jobs 2] [--output FILE] [--figure PNG]

Prints a Markdown table, then JSON on the last line:

default_vs_best_sync         smallest ratio of times over unequal fleets whose messages take no time
default_vs_best_sync_links   the same where bandwidth is real
best_vs_best_sync            the first one, of our best settings
equal_ratio                  the ratio where all are equally fast
slow_group                   digits that only slow nodes hold: the default's accuracy, less its own
                             where all are equally fast; the worst fleet
byte_price                   bytes to the target over those of the best rounds; the worst fleet
byte_budget                  FedBuff's time over the default's, on as many bytes per second; the
                             worst fleet; not with --quick
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.machine import print_result
from benchmarks.study.cells import cells, study
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
    parser.add_argument(
        "--output", type=Path, help="a file of a JSON line per run; cells in it stay"
    )
    parser.add_argument("--figure", type=Path, help="a PNG of the times")
    arguments = parser.parse_args()
    chosen = [cell for cell in cells(arguments.quick) if arguments.only in str(cell)]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    runs = _read(arguments.output)
    done = {run["cell"] for run in runs}
    wanted = [cell for cell in chosen if str(cell) not in done]
    begin = time.monotonic()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        awaited = [pool.submit(study, cell, seeds, arguments.quick) for cell in wanted]
        for number, future in enumerate(as_completed(awaited), start=1):
            runs += (news := future.result())
            if arguments.output:
                with arguments.output.open("a") as file:
                    file.writelines(json.dumps(run) + "\n" for run in news)
            took_s = time.monotonic() - begin
            print(f"{number} of {len(wanted)} cells, {took_s:.0f} s", file=sys.stderr)
    print_table(runs, chosen)
    if arguments.figure:
        draw(runs, chosen, arguments.figure)
    print_result("study", dict(ratios(runs, chosen)), quick=arguments.quick, seeds=seeds)


def _read(path: Path | None) -> list[dict[str, object]]:
    return list(map(json.loads, path.read_text().splitlines())) if path and path.exists() else []


if __name__ == "__main__":
    main()
