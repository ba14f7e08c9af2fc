"""Our engine, running the same unmodified Flower app with and without worker processes."""

import logging
from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from benchmarks.engine_workload import COHORT, NODES, Sample, Stopwatch, client_app, module
from fedagent import FedBuff, run_simulation
from fedagent.callbacks import Callback
from fedagent.simulation import Lognormal, Runtime
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates

_WARM_UP = 2 * COHORT  # updates before the clock starts: workers come up, caches fill


class _Timed(Callback):
    """Measures from the end of the warm-up to the end of the run."""

    sample: Sample

    def on_version(self, statistics: Statistics) -> None:
        if statistics.num_updates == _WARM_UP:
            self._watch = Stopwatch()

    def on_end(self, statistics: Statistics, reason: str, arrays: Callable) -> None:
        self.sample = self._watch.sample(statistics.num_updates - _WARM_UP)


def fedagent(workers: int) -> Callable[[str, int], Sample]:
    """Return what runs FedBuff with 20 nodes at work and 20 updates per version."""

    def measure(name: str, clients: int) -> Sample:
        logging.getLogger("flwr").setLevel(logging.WARNING)
        timed = _Timed()
        strategy = FedBuff(
            buffer_size=COHORT,
            concurrency=COHORT,
            fraction_evaluate=0.0,
            callbacks=[timed],
            stopping=[MaxUpdates(_WARM_UP + clients)],
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

        run_simulation(
            server, client_app, fleet=Lognormal(num_nodes=NODES), runtime=Runtime(workers)
        )
        return timed.sample

    return measure
