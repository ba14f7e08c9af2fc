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
from pathlib import Path

from benchmarks.convergence.methods import TARGET
from benchmarks.convergence.parts import PARTS, Workers, one_thread
from benchmarks.convergence.report import draw, plain, print_tables
from benchmarks.machine import print_result


def main(arguments: list[str] | None = None) -> None:
    """Run the parts and print their tables; JSON on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a glance at each part: 1 minute")
    parser.add_argument("--only", choices=list(PARTS), help="run one part")
    parser.add_argument("--seeds", type=int, help="default 3; 1 with --quick")
    parser.add_argument("--figure", type=Path, default=Path("outputs/convergence.png"))
    options = parser.parse_args(arguments)
    seeds = options.seeds or (1 if options.quick else 3)
    one_thread()
    with Workers(seeds, options.quick) as workers:
        results = {
            name: run(workers) for name, run in PARTS.items() if options.only in (None, name)
        }
    print_tables(results)
    if "digits" in results:
        draw(results, options.figure)
        print(f"Figure: {options.figure}\n")
    print_result("convergence", plain(results), quick=options.quick, seeds=seeds, target=TARGET)


if __name__ == "__main__":
    main()
