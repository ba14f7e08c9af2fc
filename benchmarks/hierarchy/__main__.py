"""A proxy per region against one for all: time and bytes between regions to a target accuracy.

    100 nodes in 4 regions of 25; a job is one local step and takes about 8 s (lognormal, sigma
    0.5); the model (25,450 parameters, 102 kB) takes a minute on a link between regions each way
    and 0.1 s inside a region; packaged MNIST, whose classes are divided among the regions by
    Dirichlet(0.3), and evenly inside a region

Flat FedBuff has its proxy in region 0: 25 nodes are near it, 75 far away. Hierarchical FedBuff has
an edge in every region and the root in region 0. Both keep all 100 nodes at work. The client's
learning rate is the best of 0.4 and 0.6 for FedBuff, and of 0.2 and 0.4 for the hierarchy.

    python -m benchmarks.hierarchy [--quick] [--seeds 1,2,3]        JSON on the last line
"""

import argparse

from benchmarks.hierarchy.comparison import hierarchy
from benchmarks.machine import print_result


def main(arguments: list[str] | None = None) -> None:
    """Compare both; JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, to an accuracy of 0.65")
    parser.add_argument("--seeds", default="1,2,3")
    options = parser.parse_args(arguments)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    print_result("hierarchy", hierarchy(options.quick, seeds), quick=options.quick)


if __name__ == "__main__":
    main()
