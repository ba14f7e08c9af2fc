"""A cluster of several machines, each a raylet of its own: the same bytes, also if one is lost."""

import threading
import time
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedagent import FedBuff, run_simulation
from fedagent.simulation import Lognormal, Runtime
from fedagent.stopping import MaxUpdates
from fedagent.wire.records import digest
from tests.simulation.apps import app_of, metrics

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402


@pytest.fixture
def cluster():
    """Three raylets with a CPU each."""
    each = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=each)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    ray.init(address=cluster.address, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def client(note: Path, seconds: float) -> ClientApp:
    """A ClientApp whose jobs never end on the machine that `note` names."""

    def train(message, context):
        if note.exists() and note.read_text() == ray.get_runtime_context().get_node_id():
            note.with_suffix(".reached").touch()
            time.sleep(1000)
        time.sleep(seconds)  # so that other machines get something to do
        start = message.content["arrays"].to_torch_state_dict()
        moved = ArrayRecord({key: value + torch.randn(value.shape) for key, value in start.items()})
        return RecordDict({"arrays": moved, **metrics()})

    return app_of(train)


def trained(app: ClientApp, runtime: Runtime) -> tuple[str, dict]:
    """Return the digest of the last version, and how the jobs ended."""
    server, found = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedBuff(
            buffer_size=4, concurrency=6, fraction_evaluate=0.0, stopping=[MaxUpdates(40)]
        )
        result = strategy.start(grid, ArrayRecord({"w": torch.zeros(40_000)}), num_rounds=100)
        found.append(digest(result.arrays))

    done = run_simulation(server, app, fleet=Lognormal(num_nodes=12), runtime=runtime)
    return found[0], done.statistics.by_outcome()


def lose(cluster, node, reached: Path) -> None:
    """Take a machine away once it has something to do."""
    while not reached.exists():
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.slow
def test_a_machine_that_is_lost_costs_its_jobs_only_and_they_are_done_again(cluster, tmp_path):
    note, lost = tmp_path / "lost", next(iter(cluster.worker_nodes))
    expected = trained(client(note, 0.0), Runtime())
    note.write_text(lost.node_id)
    losing = threading.Thread(
        target=lose, args=(cluster, lost, note.with_suffix(".reached")), daemon=True
    )
    losing.start()
    on_cluster = Runtime(backend="ray", workers=None, address=cluster.address)
    assert trained(client(note, 0.1), on_cluster) == expected
    losing.join(10)
    assert not losing.is_alive(), "the machine had a job, and is gone"
