"""The training of `benchmarks.engine`, on any device: with fedagent, and in a bare loop."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, UserConfig
from flwr.serverapp import Grid, ServerApp

from benchmarks.engine.workload import (
    BATCH_SIZE,
    EXAMPLES,
    LEARNING_RATE,
    Classify,
    module,
    partition,
)
from clients.vision.model import build
from fedagent import FedBuff, run_simulation
from fedagent.callbacks import Callback
from fedagent.client import ClientSpec, LocalTraining, build_client_app
from fedagent.simulation import Equal, Runtime
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates


def _spec(run_config: UserConfig) -> ClientSpec:
    training = LocalTraining(
        "sgd",
        LEARNING_RATE,
        EXAMPLES // BATCH_SIZE,
        BATCH_SIZE,
        precision=run_config["precision"],  # type: ignore[arg-type]
    )
    return ClientSpec(Classify(str(run_config["model"])), training, str(run_config["device"]))


app = build_client_app(_spec)
APP = "benchmarks.gpu.training:app"  # by name: processes cannot be forked once CUDA is in use


@dataclass(frozen=True)
class Trained:
    """What a run came to.

    Attributes
    ----------
    model : (P,) all parameters of the last version.
    clients_per_s : after the warm-up.
    """

    model: torch.Tensor
    clients_per_s: float


class _Clock(Callback):
    """Takes the time when a version comes out."""

    def __init__(self) -> None:
        self.times: list[tuple[int, float]] = []

    def on_version(self, statistics: Statistics) -> None:
        """Note how many updates there are by now."""
        self.times.append((statistics.num_updates, time.perf_counter()))

    def clients_per_s(self, warm_up: int) -> float:
        """Return the rate over the versions after the first `warm_up`."""
        (before, begun_s), (after, ended_s) = self.times[warm_up - 1], self.times[-1]
        return (after - before) / (ended_s - begun_s)


def train(
    name: str,
    device: str,
    at_work: int,
    versions: int,
    runtime: Runtime,
    precision: str = "float32",
    warm_up: int = 1,
) -> Trained:
    """Train a network on nodes of equal speed; all that are at work make a version.

    Parameters
    ----------
    name : of the network.
    at_work : nodes, >= 1; with a vectorised runtime as many as a batch has.
    versions : after `warm_up` further ones, whose time does not count.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    clock, server = _Clock(), ServerApp()
    strategy = FedBuff(
        buffer_size=at_work,
        concurrency=at_work,
        fraction_evaluate=0.0,
        callbacks=[clock],
        stopping=[MaxUpdates((warm_up + versions) * at_work)],
    )
    results = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        arrays = ArrayRecord(module(name).state_dict())
        results.append(strategy.start(grid, arrays, num_rounds=1_000_000, timeout=1e9))

    run_simulation(
        server,
        APP,
        fleet=Equal(num_nodes=at_work),
        runtime=runtime,
        run_config={"model": name, "device": device, "precision": precision},
    )
    arrays = [array.numpy().ravel() for array in results[0].arrays.values()]
    return Trained(torch.from_numpy(np.concatenate(arrays)), clock.clients_per_s(warm_up))


def start_of(name: str) -> torch.Tensor:
    """Return the (P,) parameters that a network begins with."""
    return torch.cat([value.detach().reshape(-1) for value in module(name).state_dict().values()])


def bare(name: str, device: torch.device, clients: int) -> float:
    """Train client after client in a loop without federation; return clients per second."""
    model = build(name, channels=1, size=28, num_classes=10).to(device)
    start = {key: value.clone() for key, value in model.state_dict().items()}

    def job(node: int) -> None:
        model.load_state_dict(start)
        pixels, labels = partition(node)
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
        for chosen in torch.randperm(EXAMPLES).split(BATCH_SIZE):
            optimizer.zero_grad()
            logits = model(pixels[chosen].to(device))
            F.cross_entropy(logits, labels[chosen].to(device)).backward()
            optimizer.step()

    return rate(job, device, clients)


def rate(job: Callable[[int], None], device: torch.device, times: int) -> float:
    """Return how often per second a job is done, after a first time that does not count."""
    job(0)
    synchronise(device)
    begun_s = time.perf_counter()
    for number in range(times):
        job(number)
    synchronise(device)
    return times / (time.perf_counter() - begun_s)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
