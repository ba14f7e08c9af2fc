"""Running a Flower app on a simulated fleet, with no server to start."""

from dataclasses import dataclass, replace
from typing import cast

from flwr.app import Context, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedagent._flower import DRIVER_NODE_ID, empty_run, identify_process, legacy_server_reproducible
from fedagent.errors import check_type
from fedagent.simulation.fleets import Equal, Fleet
from fedagent.simulation.grid import SimulationGrid
from fedagent.simulation.process_tuning import process_tuned
from fedagent.simulation.runtime import Runtime
from fedagent.simulation.workers.randomness import reproducible
from fedagent.simulation.workers.work import load_app
from fedagent.statistics import Statistics

_RUN_ID = 1


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation leaves behind.

    Attributes
    ----------
    context : the ServerApp's Context, with whatever it put into ``context.state``.
    statistics : what the run did: of an asynchronous strategy its own ``proxy.statistics``, of
        `Synchronous` as it counts, of the last one if there were several; of any other what the
        grid saw, answers to train messages being updates. ``now_s`` is the virtual time that
        training took.
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
    runtime: Runtime | None = None,
    run_config: UserConfig | None = None,
) -> SimulationResult:
    """Run unmodified Flower apps on a simulated fleet.

    The same seed gives the same bytes, whatever does the work and however fast the machine, for
    ClientApps that keep nothing in their process from one message to the next; ``check`` of
    `Runtime` finds those that do. Before each job the global generators of ``random``, NumPy and
    torch are seeded from (seed, node, job).

    Parameters
    ----------
    server_app, client_app : apps, or ``"module:attribute"``.
    num_supernodes : number of nodes; overrides ``fleet.num_nodes``.
    fleet : the devices; default `Equal`.
    seed : of the server's and the clients' global generators.
    runtime : what does the clients' work; by default this process, one client after the other.
    run_config : ``context.run_config`` of both apps.

    Raises
    ------
    ConfigurationError
        If an app cannot be loaded or a number cannot work. What the ServerApp raises passes.
    """
    check_type("fleet", fleet, Fleet | None)
    check_type("runtime", runtime, Runtime | None)
    check_type("seed", seed, int)
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
    executor = (runtime or Runtime()).executor(client_app)
    legacy = legacy_server_reproducible(fleet.num_nodes)
    with executor, reproducible(seed), process_tuned(), legacy:
        grid = SimulationGrid(fleet, executor, empty_run(_RUN_ID), dict(run_config or {}), seed)
        server(grid, context)
    return SimulationResult(context, grid.run_statistics or grid.statistics)
