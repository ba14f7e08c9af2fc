"""What the collaborative model does, section by section, in numbers.

equivalence       complete mixing, c_ik = 1/K, beside the rule with one averaged model
consensus         how fast distances fall on ring, torus and star, beside numpy's eigenvalue
personalisation   hidden groups: learned mixing beside one global model and learning alone
hierarchy         a proxy per region beside one for all: time and bytes between regions
two_nodes         linear and logistic regression beside a recursion in NumPy
cost              milliseconds per update of 120,000 parameters on 100 nodes

python -m benchmarks.collaboration [--quick] [--figures docs/figures]     JSON on the last line
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.collaboration.figures import plot_consensus, plot_personalisation
from benchmarks.collaboration.sections import FULL, QUICK, SECTIONS
from benchmarks.machine import print_result, version_of
from benchmarks.two_nodes.study import plot as plot_two_nodes


def main(arguments: list[str] | None = None) -> None:
    """Answer the sections' questions; JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: one seed, shorter")
    parser.add_argument("--section", choices=SECTIONS, help="this one only")
    parser.add_argument("--figures", type=Path, help="write the figures into this folder too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sections = {}
    for name, section in SECTIONS.items():
        if options.section in (None, name):
            begin = time.perf_counter()
            sections[name] = section(options.quick)
            print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)
    if options.figures:
        drawings: dict[str, Callable[[Path], None]] = {
            "two_nodes.png": plot_two_nodes,
            "consensus.png": plot_consensus,
            "personalisation.png": partial(
                plot_personalisation, settings=QUICK if options.quick else FULL
            ),
        }
        for name, draw in drawings.items():
            draw(options.figures / name)
    print_result(
        "collaboration",
        {"sections": sections},
        quick=options.quick,
        networkx=version_of("networkx"),
    )


if __name__ == "__main__":
    main()
