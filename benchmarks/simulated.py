"""One simulated run on packaged MNIST with a small network, to a target accuracy and no further."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord, UserConfig
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp import Grid, ServerApp
from torch import nn

from clients.vision import VisionTask
from fedagent import AsyncStrategy, keys, run_simulation
from fedagent.callbacks import Callback
from fedagent.client import ClientSpec, LocalTraining, build_client_app
from fedagent.simulation import Fleet
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates, RunEnd, Stopping, Target
from fedagent.tasks.partitioning import Partition, dirichlet

TARGET = 0.85


class SmallVision(VisionTask):
    """The vision task with a network of one hidden layer: 784-32-10, 25,450 parameters."""

    def build_model(self) -> nn.Module:
        """Return the small network."""
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))


@dataclass
class Ending(Callback):
    """Keeps the totals of a run."""

    statistics: Statistics = field(default_factory=Statistics)

    def on_end(self, statistics: Statistics, end: RunEnd, arrays: Callable) -> None:
        """Keep them."""
        self.statistics = statistics


@dataclass(frozen=True)
class World:
    """What a run is about, whatever the strategy."""

    fleet: Fleet
    seed: int
    partition: Partition = dirichlet
    learning_rate: float = 0.1
    local_steps: int = 8
    max_updates: int = 4000
    target: float = TARGET
    mods: Sequence[Mod] = ()


def to_target(build: Callable[..., AsyncStrategy], world: World) -> dict[str, float | None]:
    """Run ``build(callbacks=, stopping=, fraction_evaluate=)`` until the target accuracy."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    task = SmallVision(
        num_partitions=world.fleet.num_nodes, partition=world.partition, seed=world.seed
    )
    task.num_examples(0)  # data or a partition that cannot work fails here, not on every node
    ending, target = Ending(), Target(world.target)
    stopping: list[Stopping] = [target, MaxUpdates(world.max_updates)]
    strategy = build(callbacks=[ending], stopping=stopping, fraction_evaluate=0.0)
    run_simulation(
        _server(strategy, task, world), _client(task, world), fleet=world.fleet, seed=world.seed
    )
    totals = ending.statistics
    is_reached = target(totals) is not None
    newest = next(e for e in reversed(totals.evaluations) if e.source == "server")
    return {
        "time_to_target_s": totals.now_s if is_reached else None,
        "updates_to_target": totals.num_updates if is_reached else None,
        "num_updates": totals.num_updates,
        "final_accuracy": newest.metrics["accuracy"],
        "bytes": totals.bytes_down + totals.bytes_up,
        "bytes_between_regions": totals.bytes_between_regions,
        "staleness_mean": totals.staleness_mean,
        "staleness_max": totals.staleness_max,
        "utilisation": totals.utilisation,
    }


def _server(strategy: AsyncStrategy, task: SmallVision, world: World) -> ServerApp:
    app = ServerApp()
    device = torch.device("cpu")

    def evaluate(version: int, arrays: ArrayRecord) -> MetricRecord:
        model = task.build_model()
        model.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord(dict(task.evaluate(model, device)))

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        torch.manual_seed(world.seed)
        strategy.start(
            grid,
            ArrayRecord(task.build_model().state_dict()),
            num_rounds=1_000_000,
            timeout=1e6,
            train_config=ConfigRecord(
                {keys.LOCAL_STEPS: world.local_steps, keys.LEARNING_RATE: world.learning_rate}
            ),
            evaluate_fn=evaluate,
        )

    return app


def _client(task: SmallVision, world: World) -> ClientApp:
    def build(run_config: UserConfig) -> ClientSpec:
        return ClientSpec(task, LocalTraining(batch_size=32), device="cpu", mods=world.mods)

    return build_client_app(build)
