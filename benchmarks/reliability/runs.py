"""Runs that are killed: a simulated one that must end with the same bits, and a real one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam

from benchmarks.reliability.local_grid import Counting, LocalGrid
from fedagent import (
    AsyncStrategy,
    Collaborative,
    FedAsync,
    FedBuff,
    Hierarchical,
    asynchronous,
    run_simulation,
)
from fedagent.callbacks import Callback, Settlement
from fedagent.journal import Checkpoints
from fedagent.mixing import ring
from fedagent.nodes.geography import Blocks, Links
from fedagent.rules import CA2FL, FADAS
from fedagent.rules.staleness import constant
from fedagent.scheduling import FedCompass
from fedagent.simulation import Lognormal, Runtime
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates
from fedagent.wire.records import digest

NODES = 8
UPDATES = 40
EVERY = 5

STRATEGIES: dict[str, Callable[..., AsyncStrategy]] = {
    "fedbuff": lambda **o: FedBuff(buffer_size=3, **o),
    "fedasync": FedAsync,
    "ca2fl": lambda **o: AsyncStrategy(CA2FL(buffer_size=3), **o),
    "fadas": lambda **o: AsyncStrategy(FADAS(buffer_size=3), **o),
    "fedcompass": lambda **o: FedBuff(
        buffer_size=3, scheduler=FedCompass(2, 8, learning_rate=0.05), **o
    ),
    "hierarchical": lambda **o: Hierarchical(Blocks(2, NODES), links=Links(0.5), send_every=2, **o),
    "collaborative": lambda **o: Collaborative(mixing=ring(NODES), buffer_size=1, **o),
    "wrapped fedadam": lambda **o: asynchronous(FedAdam(eta=0.1), buffer_size=4, **o),
}


def simulated(name: str, folder: Path | None, resume: bool = False) -> str:
    """Run a strategy on a simulated fleet; return what it leaves: the model and all numbers."""
    saving = None if folder is None else Checkpoints(folder, "updates", EVERY, resume=resume)
    strategy = STRATEGIES[name](
        concurrency=4, min_available_nodes=1, stopping=[MaxUpdates(UPDATES)], checkpoint=saving
    )
    server, found = ServerApp(), []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        zeros = {"weight": torch.zeros(20, 5), "bias": torch.zeros(5)}
        config = ConfigRecord({"lr": 0.05})
        arrays = strategy.start(grid, ArrayRecord(zeros), 1_000_000, train_config=config).arrays
        numbers = asdict(strategy.proxy.statistics) | {"wall_s": None}
        found.append(f"{digest(arrays)} {sorted(numbers.items())}")

    fleet = Lognormal(num_nodes=NODES, seed=3)
    run_simulation(server, _noisy_client(), fleet=fleet, seed=3, runtime=Runtime(workers=0))
    return str(found[0])


def _noisy_client() -> ClientApp:
    """Return an app whose replies depend on the model and on a random generator."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = message.content["arrays"].to_torch_state_dict()
        arrays = {name: 0.9 * a + 0.1 * torch.randn(a.shape) for name, a in state.items()}
        metrics = MetricRecord({"num-examples": 10, "loss": float(arrays["bias"].sum())})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        bias = message.content["arrays"].to_torch_state_dict()["bias"]
        metrics = MetricRecord({"num-examples": 10, "bias": float(bias.sum())})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


class _Acknowledged(Callback):
    """Writes down the token of every update that counts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "acknowledged"

    def on_settled(self, statistics: Statistics, settlement: Settlement) -> None:
        """Write a line, which a killed process cannot take back."""
        if settlement.outcome == "applied":
            with self._path.open("a") as file:
                file.write(f"{settlement.dispatch.token}\n")


@dataclass(frozen=True)
class Account:
    """What became of the updates of a real run.

    Attributes
    ----------
    acknowledged : that were counted as applied, by any of its processes.
    lost : of those, the ones that the model does not hold.
    doubled : updates that it holds more than once.
    wrong : by how much the run's own count differs from what the model holds.
    """

    acknowledged: int
    lost: int
    doubled: int
    wrong: int


def real(folder: Path, resume: bool = False, every: int = EVERY) -> None:
    """Run FedBuff on a real fleet in one process; leave the model's counts in a file."""
    app = Counting(folder, 50 * UPDATES)
    saving = Checkpoints(folder / "checkpoints", "updates", every, resume=resume)
    # The mean of four, four times: every update adds what it is.
    strategy = FedBuff(
        buffer_size=4,
        server_learning_rate=4.0,
        staleness=constant,
        concurrency=3,
        fraction_evaluate=0.0,
        stopping=[MaxUpdates(UPDATES)],
        callbacks=[_Acknowledged(folder)],
        checkpoint=saving,
    )
    arrays = strategy.start(LocalGrid(app), app.initial(), num_rounds=1_000_000).arrays
    np.save(folder / "counts.npy", arrays.to_numpy_ndarrays()[0])
    (folder / "num_updates").write_text(str(strategy.proxy.statistics.num_updates))


def account(folder: Path) -> Account:
    """Return what became of the updates of a real run that is over."""
    counts = np.load(folder / "counts.npy")
    tokens = Counter((folder / "acknowledged").read_text().split())
    by_token = dict(zip((folder / "jobs").read_text().split(), counts, strict=False))
    held = int(counts.sum())
    return Account(
        len(tokens),
        sum(not by_token[token] for token in tokens),
        int((counts > 1).sum()),
        abs(int((folder / "num_updates").read_text()) - held),
    )
