"""What a run that dies loses, and what it costs that it loses nothing.

    lost, doubled   updates that were acknowledged, and are not in the model, or are twice
    bit_exact       whether every killed simulation ended as an undisturbed one
    recovery_s      the longest time from the start of a run that goes on to its first message
    journal_...     updates per second of a simulation without and with checkpoint=versions, in turn
                    in one process, and the share that it costs; journal_cost is that of wall time
    real_...        the same of checkpoint=real on a wall clock, with clients that take no time
    deployed_...    the same of a SuperLink and two nodes that answer at once
    memory_mb_per_10k   growth of a real run with the default journal
    checkpoint_...  a checkpoint against writing as many bytes with an fsync
    failures_...    time to a target where three of ten jobs fail over that where none does

    python -m benchmarks.reliability [--quick]

The quick one takes less than a minute: one strategy, each edge once, a small network. Where the
files lie decides what an fsync costs: TMPDIR says where.
"""

import argparse

import torch

from benchmarks.machine import print_result
from benchmarks.reliability import cost
from benchmarks.reliability.chaos import chaos
from benchmarks.reliability.failures import time_to_target
from benchmarks.reliability.runs import STRATEGIES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="in less than a minute")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    names = ("fedbuff",) if quick else tuple(STRATEGIES)
    found = chaos(each=1 if quick else 20, names=names).summary()
    model, updates, pairs = ("linear", 200, 1) if quick else ("cnn", 400, 5)
    of_simulation = cost.side_by_side(cost.simulated(model, updates), pairs, "versions")
    of_real = cost.side_by_side(cost.real(121_000, 200), pairs, "updates")
    found |= {f"journal_{name}": value for name, value in of_simulation.items()}
    found |= {f"real_journal_{name}": value for name, value in of_real.items()}
    found["memory_mb_per_10k"] = cost.memory_mb_per_10k(2_000 if quick else 50_000)
    found |= cost.large_checkpoint(1_000_000 if quick else 100_000_000, 3 if quick else 9)
    if not quick:
        of_fleet = cost.deployed(pairs)
        found |= {f"deployed_journal_{name}": value for name, value in of_fleet.items()}
        found |= time_to_target(range(10))
    print("| | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value} |")
    print_result("reliability", found, model=model, updates=updates, pairs=pairs, seeds=[0])


if __name__ == "__main__":
    main()
