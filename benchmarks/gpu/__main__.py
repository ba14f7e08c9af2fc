"""A GPU, or another device: whether its results are the CPU's, and how many clients it trains.

Checks. Each is a distance between two models, as a share of the way that training went:

    device       trained on it one by one, beside the CPU
    vectorised   as one batch, beside one by one, both on the device
    bfloat16     in mixed precision, beside float32 on the device
    workers      in two worker processes that share the device, beside one process
    aggregation  a buffer of updates summed on the device, beside the CPU

Figures, per network, in clients per second: a bare loop, one by one, as one batch of 20, 100 and
500, and one by one with two worker processes; and GB/s of the buffer, 100 million parameters.

A check that fails makes the exit status 1. Eight minutes at most on a GPU; ``--quick`` does all of
it with sizes that a CPU does in seconds.

    python -m benchmarks.gpu [--quick] [--device auto] [--models linear,mlp,cnn]
"""

import argparse
import sys
import time

import torch

from benchmarks.engine.workload import MODELS
from benchmarks.gpu.training import bare, rate, start_of, train
from benchmarks.machine import print_result
from fedagent.client.device import resolve_device
from fedagent.rules.buffer import Buffer
from fedagent.simulation import Runtime

TOLERANCES = {
    "device": 1e-2,  # convolutions may compute in TF32
    "vectorised": 1e-2,
    "bfloat16": 0.2,
    "workers": 1e-3,
    "aggregation": 1e-5,
}
GROUPS, QUICK_GROUPS = (20, 100, 500), (4,)
BUDGET_S = 420.0  # what has not begun by then is left out
ONE_BY_ONE, IN_TWO_PROCESSES = Runtime(), Runtime(workers=2)


def distance(one: torch.Tensor, other: torch.Tensor, start: torch.Tensor) -> float:
    """Return how far two (P,) models are from each other, as a share of how far one has come."""
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(one - start))


def vectorised(group: int) -> Runtime:
    """Return what trains a group as one batch."""
    return Runtime(vectorise="always", group_size=group)


def check(name: str, device: str, at_work: int) -> dict[str, float]:
    """Train a network in every way; return the distances."""
    start = start_of(name)
    cpu = train(name, "cpu", at_work, 1, ONE_BY_ONE).model
    alone = train(name, device, at_work, 1, ONE_BY_ONE).model
    together = train(name, device, at_work, 1, vectorised(at_work)).model
    mixed = train(name, device, at_work, 1, ONE_BY_ONE, precision="bfloat16").model
    shared = train(name, device, at_work, 1, IN_TWO_PROCESSES).model
    return {
        "device": distance(cpu, alone, start),
        "vectorised": distance(alone, together, start),
        "bfloat16": distance(alone, mixed, start),
        "workers": distance(alone, shared, start),
    }


def check_aggregation(device: torch.device, size: int) -> float:
    """Return how far a device's mean of updates is from the CPU's."""
    generator = torch.Generator().manual_seed(1)
    deltas = [torch.randn(size, generator=generator) for _ in range(5)]
    means = []
    for place in (torch.device("cpu"), device):
        buffer = Buffer()
        for weight, delta in enumerate(deltas, start=1):
            buffer.add(delta.to(place), weight)
        means.append(buffer.take().cpu())
    return distance(means[0], means[1], torch.zeros(size))


def aggregation_gb_per_s(device: torch.device, size: int) -> float:
    """Return how fast a buffer takes in updates: it reads an update and a sum, and writes one."""
    buffer, delta = Buffer(), torch.ones(size, device=device)
    return rate(lambda _: buffer.add(delta, 0.5), device, 20) * 3 * 4 * size / 1e9


def measure(name: str, device: torch.device, quick: bool, ends_s: float) -> dict[str, float]:
    """Return clients per second in every way that there is time for."""
    clients, groups = (8, QUICK_GROUPS) if quick else (400, GROUPS)
    found = {"bare": bare(name, device, clients)}
    ways = {
        "one_by_one": (20, ONE_BY_ONE, 1),
        "two_workers": (20, IN_TWO_PROCESSES, 1),
        # What is trained as one batch is recorded after 50 steps, five of each job.
        **{f"vectorised_{group}": (group, vectorised(group), 12) for group in groups},
    }
    for way, (at_work, runtime, warm_up) in ways.items():
        if time.monotonic() < ends_s:
            sizes = (min(at_work, 4), 1, runtime) if quick else (at_work, 5, runtime)
            trained = train(name, str(device), *sizes, warm_up=1 if quick else warm_up)
            found[way] = trained.clients_per_s
    return {way: round(clients_per_s, 1) for way, clients_per_s in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Check and measure a device; JSON on the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, seconds on a CPU")
    parser.add_argument("--device", default="auto", help="such as cuda:1")
    parser.add_argument("--models", help="networks, with commas; linear alone with --quick")
    options = parser.parse_args(arguments)
    ends_s = time.monotonic() + BUDGET_S
    torch.set_num_threads(1)
    device = resolve_device(options.device)
    names = options.models.split(",") if options.models else MODELS[: 1 if options.quick else None]
    size = 10_000 if options.quick else 100_000_000

    distances = {name: check(name, str(device), 4 if options.quick else 20) for name in names}
    distances["buffer"] = {"aggregation": check_aggregation(device, min(size, 1_000_000))}
    failed = [
        f"{where}: {what} is {far:.2g}, more than {TOLERANCES[what]:g}"
        for where, found in distances.items()
        for what, far in found.items()
        if not far <= TOLERANCES[what]  # NaN is not
    ]
    print("| model | check | distance | at most |\n|---|---|---|---|")
    for where, found in distances.items():
        for what, far in found.items():
            print(f"| {where} | {what} | {far:.2g} | {TOLERANCES[what]:g} |")
    figures = {name: measure(name, device, options.quick, ends_s) for name in names}
    print("\n| model | way | clients/s |\n|---|---|---|")
    for name, found in figures.items():
        for way, clients_per_s in found.items():
            print(f"| {name} | {way} | {clients_per_s} |")
    print_result(
        "gpu",
        {
            "distances": distances,
            "failed": failed,
            "clients_per_s": figures,
            "aggregation_gb_per_s": round(aggregation_gb_per_s(device, size), 2),
        },
        device=str(device),
        quick=options.quick,
        seeds=[0],
    )
    if failed:
        print(*failed, sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
