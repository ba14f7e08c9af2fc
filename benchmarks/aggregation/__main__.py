"""Aggregation against the speed of memory: every rule, the gate, a version, and whole replies.

**Bandwidth.** What a formula has to move, ``moves`` vectors read or written per update, each once
(a mean over a buffer's updates), by the time an update takes; ``to_axpy`` is the ratio to
``x.add_(y, alpha=a)`` of the same size, which moves three vectors, and is timed right before.
Samples of all rows are taken in turn, so that whatever else the machine does meets all of them.

**Replies.** A real run of 50 nodes in a process of its own, see `replies`: milliseconds
from one reply to the next, in units of an axpy too, and the most memory there was, in models. The
limit is 2 models, and one per distinct version in flight; a rule's own memory comes on top.

    python -m benchmarks.aggregation [--quick] [--sizes 1e6,1e7,1e8] [--rules FedAsync,FedBuff]
"""

import argparse

from benchmarks.aggregation.bandwidth import QUICK, RULES, measure
from benchmarks.aggregation.replies import PATHS, Path, measure_path
from benchmarks.machine import print_result
from fedagent._flower import DRIVER_NODE_ID, identify_process


def print_tables(bandwidth: dict[str, dict[str, dict]], paths: dict[str, dict[str, Path]]) -> None:
    print("| GB/s (to axpy) |" + "".join(f" {size} |" for size in bandwidth))
    print("|---|" + "---|" * len(bandwidth))
    for name in dict.fromkeys(name for rows in bandwidth.values() for name in rows):
        cells = [
            f"{row['gb_per_s']} ({row['to_axpy']})" if (row := rows.get(name)) else "-"
            for rows in bandwidth.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| whole replies | rule | ms | in axpys | peak, models | versions in flight |")
    print("|---|---|---|---|---|---|")
    for size, by_rule in paths.items():
        for name, path in by_rule.items():
            print(
                f"| {size} | {name} | {path.reply_ms:.1f} | {path.reply_axpys:.1f} | "
                f"{path.peak_models:.2f} | {path.versions} |"
            )


def main(arguments: list[str] | None = None) -> None:
    """Measure every size and print the tables; JSON on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a glance, under a minute")
    parser.add_argument("--sizes", default="1e6,1e7,1e8", help="parameters, with commas")
    parser.add_argument("--rules", default=",".join(RULES), help="with commas")
    parser.add_argument("--repetitions", type=int, help="default 5; 2 with --quick")
    options = parser.parse_args(arguments)
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    repetitions = options.repetitions or (2 if options.quick else 5)
    bandwidth, paths = {}, {}
    for size in options.sizes.split(","):
        parameters = int(float(size))
        is_large = parameters >= 10**8
        is_glance = is_large and options.quick
        names = [n for n in options.rules.split(",") if n in QUICK or not is_glance]
        if is_large or not options.quick:
            paths[size] = {name: measure_path(parameters, name) for name in PATHS}
        bandwidth[size] = measure(parameters, names, 1 if is_glance else repetitions)
    print_tables(bandwidth, paths)
    replies = {
        size: {name: vars(path) for name, path in by_rule.items()}
        for size, by_rule in paths.items()
    }
    print_result(
        "aggregation",
        {"bandwidth": bandwidth, "replies": replies},
        quick=options.quick,
        repetitions=repetitions,
    )


if __name__ == "__main__":
    main()
