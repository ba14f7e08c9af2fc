"""Running a Flower app on a simulated fleet, with no server to start."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

from flwr.app import Context, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedagent._flower import DRIVER_NODE_ID, empty_run, identify_process
from fedagent.errors import one_of, require
from fedagent.simulation.executors import Executor, Inline, Processes
from fedagent.simulation.fleet import Equal, Fleet
from fedagent.simulation.grid import SimulationGrid
from fedagent.simulation.grouping import Grouped
from fedagent.simulation.work import TrainsTogether, load_app, reproducible
from fedagent.statistics import Statistics

_RUN_ID = 1


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation leaves behind.

    Attributes
    ----------
    context : the ServerApp's Context, with whatever it put into ``context.state``.
    statistics : what the grid saw; ``statistics.now_s`` is the virtual time it took.
    """

    context: Context
    statistics: Statistics


def run_simulation(
    server_app: ServerApp | str,
    client_app: ClientApp | str,
    num_supernodes: int | None = None,
    *,
    fleet: Fleet | None = None,
    seed: int = 0,
    workers: int = 0,
    vectorise: str = "never",
    group_size: int = 32,
    run_config: UserConfig | None = None,
) -> SimulationResult:
    """Run unmodified Flower apps on a simulated fleet.

    The same seed gives the same bytes, whatever `workers` is and however fast the machine. Before
    each job the global generators of ``random``, NumPy and torch are seeded from (seed, node, job).

    Parameters
    ----------
    server_app, client_app : apps, or ``"module:attribute"``.
    num_supernodes : number of nodes; overrides ``fleet.num_nodes``.
    fleet : the devices; default `Equal`.
    seed : of the server's and the clients' global generators.
    workers : worker processes; 0 does the clients' work in this process.
    vectorise : whether clients at work at the same time are trained as one batch, for apps that
        can (`build_client_app`): "never"; "always", where each client's model comes out as alone
        only up to rounding; "auto", which tries with the first clients which is faster, so that
        the last bits may differ from run to run.
    group_size : clients per batch, at most, >= 2.
    run_config : ``context.run_config`` of both apps.

    Raises
    ------
    ConfigurationError
        If an app cannot be loaded or a number cannot work. What the ServerApp raises passes.
    """
    require(workers >= 0, f"workers={workers} must not be negative.")
    fleet = fleet or Equal(num_nodes=num_supernodes or 10)
    if num_supernodes is not None:
        fleet = replace(fleet, num_nodes=num_supernodes)
    server = cast(ServerApp, load_app(server_app, ServerApp))
    identify_process(_RUN_ID, DRIVER_NODE_ID, task_id=1)
    context = Context(
        run_id=_RUN_ID,
        node_id=DRIVER_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config or {}),
    )
    one_of("vectorise", vectorise, ("never", "auto", "always"))
    executor: Executor = Processes(client_app, workers) if workers else Inline(client_app)
    if vectorise != "never" and _trains_together(client_app, vectorise):
        executor = Grouped(executor, vectorise, group_size)
    with executor, reproducible(seed), _old_objects_left_alone():
        grid = SimulationGrid(fleet, executor, empty_run(_RUN_ID), dict(run_config or {}), seed)
        server(grid, context)
    return SimulationResult(context, grid.statistics)


def _trains_together(client_app: ClientApp | str, vectorise: str) -> bool:
    can = isinstance(load_app(client_app, ClientApp), TrainsTogether)
    require(
        can or vectorise == "auto",
        "vectorise=always: this ClientApp trains one client at a time. Build it with "
        "fedagent.client.build_client_app, or set vectorise=never.",
    )
    return can


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector off what exists before the run.

    That is some 350,000 objects of torch, Flower and Hydra, a fifth of a second each time that it
    looks through them for nothing, and memory that forked workers would no longer share.
    """
    if gc.get_freeze_count():  # somebody else has seen to it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
