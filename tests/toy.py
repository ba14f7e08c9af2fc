"""A linear regression that every node can learn in milliseconds, as unmodified Flower apps."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result
from torch import nn

from fedagent import run_simulation
from fedagent.callbacks import Callback, Settlement
from fedagent.simulation import Fleet, Runtime
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd

TRUE_WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0])

Misbehaviour = Callable[[int, RecordDict], RecordDict | None]
"""(partition, honest reply) -> the reply that is sent instead, or None for the honest one."""


def model() -> nn.Module:
    return nn.Linear(4, 1)


def train(
    weights: dict[str, torch.Tensor], partition: int, steps: int = 5
) -> tuple[nn.Module, float]:
    """Gradient steps on the partition's own 20 examples."""
    net = model()
    net.load_state_dict(weights)
    generator = torch.Generator().manual_seed(partition)
    inputs = torch.randn(20, 4, generator=generator)
    targets = inputs @ TRUE_WEIGHTS[:, None] + 0.1 * torch.randn(20, 1)  # global generator: noise
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((net(inputs) - targets) ** 2).mean()
        loss.backward()
        optimizer.step()
    return net, loss.item()


def client_app(misbehave: Misbehaviour | None = None, mods: list[Mod] | None = None) -> ClientApp:
    """A ClientApp as in Flower's tutorials: full weights, ``num-examples``, its own evaluate."""
    app = ClientApp(mods=mods)

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        net, loss = train(message.content["arrays"].to_torch_state_dict(), partition)
        reply = RecordDict(
            {
                "arrays": ArrayRecord(net.state_dict()),
                "metrics": MetricRecord({"num-examples": 10 + partition, "loss": loss}),
            }
        )
        changed = misbehave(partition, reply) if misbehave else None
        return Message(changed or reply, reply_to=message)

    @app.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        weights = message.content["arrays"].to_torch_state_dict()["weight"][0]
        metrics = MetricRecord(
            {"num-examples": 20, "error": float((weights - TRUE_WEIGHTS).norm())}
        )
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


@dataclass
class Log(Callback):
    """Keeps what a run told its callbacks."""

    settlements: list[Settlement] = field(default_factory=list)
    starts: list[tuple[int, float]] = field(default_factory=list)
    versions: list[tuple[int, int, float]] = field(default_factory=list)
    end: RunEnd | None = None
    statistics: Statistics = field(default_factory=Statistics)

    def on_settled(self, statistics, settlement):
        self.settlements.append(settlement)
        self.starts.append((settlement.dispatch.node_id, settlement.dispatch.sent_at_s))

    def on_version(self, statistics):
        self.versions.append((statistics.version, statistics.num_updates, statistics.now_s))

    def on_end(self, statistics, end, arrays):
        self.statistics, self.end = statistics, end

    @property
    def reason(self) -> str:
        return str(self.end)


@dataclass
class Run:
    result: Result
    virtual_time_s: float
    grid: Grid


def run(
    strategy,
    fleet: Fleet,
    *,
    rounds: int = 5,
    client: ClientApp | None = None,
    seed: int = 3,
    workers: int = 0,
    job_limit_s: float | None = None,
    initial: dict | None = None,
    **start_arguments,
) -> Run:
    """Start `strategy` on a simulated fleet; zeros are the initial model."""
    server, outcome = ServerApp(), {}
    zeros = {name: torch.zeros_like(value) for name, value in model().state_dict().items()}

    @server.main()
    def _main(grid: Grid, context: Context) -> None:
        outcome["grid"] = grid
        outcome["result"] = strategy.start(
            grid,
            ArrayRecord(initial or zeros),
            num_rounds=rounds,
            **{"train_config": ConfigRecord({"lr": 0.05}), **start_arguments},
        )

    run_simulation(
        server,
        client or client_app(),
        fleet=fleet,
        seed=seed,
        runtime=Runtime(workers, job_limit_s=job_limit_s),
    )
    return Run(outcome["result"], outcome["grid"].clock.now(), outcome["grid"])
