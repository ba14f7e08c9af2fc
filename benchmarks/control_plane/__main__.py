"""Tasks per second and memory when a thousand to a million nodes are registered.

A tenth of the nodes, at most 10,000, are in flight. The clients return the arrays they got and the
model has ten parameters, so what remains is the control plane. A task is chosen, dispatched,
answered, settled and given to FedBuff, which publishes every hundredth; tasks are counted from the
first settled on, when everything in flight has been dispatched.

    pure      membership, scheduler, ledger, clock, statistics and rule, without a message
    messages  `run_simulation` with Flower messages, in one process
    failing   the same on a fleet of which half is online, where 2 % of the jobs die and 1 % of the
              replies never come

Every population has a process of its own. Its memory is the peak after each part, in this order;
``imports_mb`` is what the process takes before it does anything, most of it torch.

    python -m benchmarks.control_plane [--quick] [--nodes 1000,1000000]
"""

import argparse
import json

from benchmarks.control_plane.measure import NODES, PARTS, measure, measure_apart
from benchmarks.machine import print_result


def print_table(readings: list[dict]) -> None:
    """Print what was measured, a population per line."""
    names = [name for name in PARTS if name in readings[0]]
    heads = [f"{name}: tasks/s | CPU us | peak MB" for name in names]
    print("| nodes | in flight | " + " | ".join(heads) + " |\n|" + "---|" * (2 + 3 * len(names)))
    for reading in readings:
        cells = [f"{reading['nodes']:,}", f"{reading['in_flight']:,}"]
        for name in names:
            part = reading[name]
            cells += [f"{part['tasks_per_s']:,}", f"{part['cpu_us']:.0f}", str(part["peak_mb"])]
        print("| " + " | ".join(cells) + " |")


def main(arguments: list[str] | None = None) -> None:
    """Measure every population and print the table; JSON on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a glance, under a minute")
    parser.add_argument("--nodes", default=",".join(map(str, NODES)), help="with commas")
    parser.add_argument("--tasks", type=int, help="default 10,000; 2,000 with --quick")
    parser.add_argument("--alone", nargs="+", metavar="PART", help="in this process")
    options = parser.parse_args(arguments)
    populations = [int(n) for n in options.nodes.split(",")]
    tasks = options.tasks or (2_000 if options.quick else 10_000)
    if options.alone:
        print(json.dumps(measure(populations[0], tasks, options.alone)))
        return
    parts = [part for part in PARTS if part != "failing" or not options.quick]
    readings = [measure_apart(n, tasks, parts) for n in populations]
    print_table(readings)
    print_result("control_plane", {"populations": readings}, quick=options.quick, tasks=tasks)


if __name__ == "__main__":
    main()
