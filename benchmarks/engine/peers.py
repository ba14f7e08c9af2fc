"""The other engines: pfl-research in this process, Flower's Ray simulation in one of its own."""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.engine.workload import (
    BATCH_SIZE,
    COHORT,
    LEARNING_RATE,
    NODES,
    Sample,
    Stopwatch,
    client_app,
    module,
    partition,
)
from clients.vision.model import build

Measure = Callable[[str, int], Sample]


class PeerMissingError(Exception):
    """An engine to compare with is not installed here, or does not come up; the text says why."""


# --- pfl-research -----------------------------------------------------------------------------


def pfl(name: str, clients: int) -> Sample:
    """Run pfl's FederatedAveraging in its own simulation, in one process."""
    if find_spec("pfl") is None:
        raise PeerMissingError("pfl is not installed: pip install fedagent[bench]")
    from pfl.aggregate.simulate import SimulatedBackend  # noqa: PLC0415  (an optional peer)
    from pfl.algorithm.base import NNAlgorithmParams  # noqa: PLC0415
    from pfl.algorithm.federated_averaging import FederatedAveraging  # noqa: PLC0415
    from pfl.callback.base import TrainingProcessCallback  # noqa: PLC0415
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams  # noqa: PLC0415
    from pfl.metrics import Metrics  # noqa: PLC0415

    logging.getLogger("pfl").setLevel(logging.WARNING)
    users, model = _pfl_users(), _pfl_model(name)
    rounds = clients // COHORT
    watches = []

    class AfterFirstRound(TrainingProcessCallback):
        """Starts the clock after round 0, the only one in which every client also evaluates."""

        def after_central_iteration(self, *args: object, **kwargs: object) -> Any:
            watches.append(Stopwatch())
            return False, Metrics()

    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=1 + rounds,
            evaluation_frequency=10**9,
            train_cohort_size=COHORT,
            val_cohort_size=None,
        ),
        SimulatedBackend(training_data=users, val_data=users),
        model,
        NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=BATCH_SIZE
        ),
        NNEvalHyperParams(local_batch_size=None),
        [AfterFirstRound()],
        send_metrics_to_platform=False,
    )
    return watches[0].sample(rounds * COHORT)


@lru_cache
def _pfl_users() -> Any:
    from pfl.data.dataset import Dataset  # noqa: PLC0415
    from pfl.data.federated_dataset import FederatedDataset  # noqa: PLC0415

    def shuffled(node: int) -> Any:
        pixels, labels = partition(node)
        order = torch.randperm(len(labels))
        return Dataset([pixels[order], labels[order]])

    return FederatedDataset(shuffled, lambda: int(np.random.randint(NODES)))


@lru_cache
def _pfl_model(name: str) -> Any:
    from pfl.model.pytorch import PyTorchModel  # noqa: PLC0415

    network = build(name, channels=1, size=28, num_classes=10)

    def loss(pixels: torch.Tensor, labels: torch.Tensor, eval: bool = False) -> torch.Tensor:
        network.train(not eval)
        return F.cross_entropy(network(pixels), labels)

    network.loss, network.metrics = loss, lambda *data, eval=False: {}
    return PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))


# --- Flower's simulation ----------------------------------------------------------------------


class FlowerRay:
    """Flower's simulation with two actors. It comes up once; every sample is two-way talk with it.

    Parameters
    ----------
    patience_s : for an answer; the first includes Ray's start.
    """

    def __init__(self, patience_s: float = 300.0) -> None:
        if find_spec("ray") is None:
            raise PeerMissingError("Ray is not installed: pip install fedagent[simulation]")
        self._patience_s = patience_s
        processes = multiprocessing.get_context("spawn")
        self._connection, theirs = processes.Pipe()
        self._process = processes.Process(target=_serve_flower, args=(theirs,))
        self._process.start()
        theirs.close()

    def __call__(self, name: str, clients: int) -> Sample:
        """Run Flower's FedAvg with 20 of the nodes per round."""
        self._connection.send((name, clients // COHORT))
        if not self._connection.poll(self._patience_s):
            raise PeerMissingError(f"Flower's simulation did not answer in {self._patience_s:g} s")
        try:
            return Sample(*self._connection.recv())
        except EOFError as error:
            raise PeerMissingError("Flower's simulation ended") from error

    def close(self) -> None:
        """Let Flower end its simulation; Ray ends with it."""
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(30)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve_flower(connection: Connection) -> None:
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["RAY_DISABLE_DOCKER_CPU_WARNING"] = "1"
    from flwr.simulation import run_simulation  # noqa: PLC0415  (starts Ray's import)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        _rounds(grid, "linear", 2)  # the actors come up
        while (asked := connection.recv()) is not None:
            name, rounds = asked
            _rounds(grid, name, 1)
            begun_s = time.perf_counter()
            _rounds(grid, name, rounds)
            connection.send((rounds * COHORT, time.perf_counter() - begun_s))

    run_simulation(
        server,
        client_app,
        num_supernodes=NODES,
        backend_config={"init_args": {"num_cpus": 2}, "client_resources": {"num_cpus": 1}},
    )


def _rounds(grid: Grid, name: str, rounds: int) -> None:
    FedAvg(fraction_train=COHORT / NODES, fraction_evaluate=0.0).start(
        grid=grid,
        initial_arrays=ArrayRecord(module(name).state_dict()),
        num_rounds=rounds,
        train_config=ConfigRecord({"model": name}),
    )
