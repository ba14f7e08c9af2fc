"""Two nodes that learn from each other: how far their paths are from a recursion in NumPy.

python -m benchmarks.two_nodes [--steps 150]        JSON on the last line
"""

import argparse

from benchmarks.machine import print_result
from benchmarks.two_nodes.study import study


def main(arguments: list[str] | None = None) -> None:
    """Study linear and logistic regression; JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    steps = parser.parse_args(arguments).steps
    results = {kind: study(kind, steps)[0] for kind in ("linear", "logistic")}
    print_result("two_nodes", results, steps=steps)


if __name__ == "__main__":
    main()
