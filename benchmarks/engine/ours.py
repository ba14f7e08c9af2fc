"""Our engine: 20 nodes at work, 20 updates per version."""

import logging
from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from benchmarks.engine.workload import (
    COHORT,
    NODES,
    Sample,
    Stopwatch,
    client_app,
    module,
    task_app,
)
from fedagent import FedBuff, run_simulation
from fedagent.callbacks import Callback
from fedagent.simulation import Fleet, Lognormal, Runtime
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates, RunEnd


class _Timed(Callback):
    """Measures from the end of the warm-up, so many updates, to the end of the run."""

    sample: Sample

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up

    def on_version(self, statistics: Statistics) -> None:
        if statistics.num_updates == self._warm_up:
            self._watch = Stopwatch()

    def on_end(self, statistics: Statistics, end: RunEnd, arrays: Callable) -> None:
        self.sample = self._watch.sample(statistics.num_updates - self._warm_up)


def fedagent(workers: int) -> Callable[[str, int], Sample]:
    """Return what runs FedBuff on an unmodified Flower app, with nodes of lognormal speeds."""
    fleet = Lognormal(num_nodes=NODES)
    return lambda name, clients: _measure(client_app, fleet, Runtime(workers), name, clients)


def fedagent_vectorised(fleet: Fleet) -> Callable[[str, int], Sample]:
    """Return what trains whoever is at work at the same time as one batch, in this process.

    With equal speeds that are 20 nodes, as many as the peers have in a round; with lognormal speeds
    the fast ones come back for more while the slow ones have long been computed, so there are fewer
    to go with them.
    """
    runtime = Runtime(vectorise="always")
    return lambda name, clients: _measure(task_app(name), fleet, runtime, name, clients)


def _measure(app: ClientApp, fleet: Fleet, runtime: Runtime, name: str, clients: int) -> Sample:
    logging.getLogger("flwr").setLevel(logging.WARNING)
    # Workers come up and caches fill; what clients do as one batch is recorded after 50 steps.
    warm_up = COHORT if runtime.vectorise == "never" else 20 * COHORT
    timed = _Timed(warm_up)
    strategy = FedBuff(
        buffer_size=COHORT,
        concurrency=COHORT,
        fraction_evaluate=0.0,
        callbacks=[timed],
        stopping=[MaxUpdates(warm_up + clients)],
    )
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(
            grid,
            ArrayRecord(module(name).state_dict()),
            num_rounds=1_000_000,
            train_config=ConfigRecord({"model": name}),
        )

    run_simulation(server, app, fleet=fleet, runtime=runtime)
    return timed.sample
