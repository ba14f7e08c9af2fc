"""An own Strategy: it decays the learning rate, keeps the best model on disk and a history."""

import tempfile
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
TRUTH = np.array([1.0, -2.0, 0.5, 3.0])


def load(partition):
    random = np.random.default_rng(partition)
    x = random.normal(size=(30, 4))
    return x, x @ TRUTH + 0.1 * random.normal(size=30)


@client.train()
def train(msg, context):
    w = msg.content["arrays"]["w"].numpy()
    x, y = load(context.node_config["partition-id"])
    for _ in range(3):
        w = w - msg.content["config"]["lr"] * x.T @ (x @ w - y) / len(x)
    loss = float(np.mean((x @ w - y) ** 2))
    metrics = MetricRecord({"loss": loss, "num-examples": len(x)})
    arrays = ArrayRecord({"w": Array(w)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@client.evaluate()
def test(msg, context):
    x, y = load(context.node_config["partition-id"])
    loss = float(np.mean((x @ msg.content["arrays"]["w"].numpy() - y) ** 2))
    metrics = MetricRecord({"loss": loss, "num-examples": len(x)})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)


class Checkpointing(FedAvg):
    """FedAvg that remembers."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.folder, self.best, self.history = Path(), float("inf"), []

    def set_save_path(self, folder):
        self.folder = Path(folder)

    def configure_train(self, server_round, arrays, config, grid):
        config["lr"] *= 0.97
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is not None and metrics["loss"] < self.best:
            self.best = metrics["loss"]
            np.savez(self.folder / "best.npz", **{k: v.numpy() for k, v in arrays.items()})
        metrics["best"] = self.best
        return arrays, metrics

    def aggregate_evaluate(self, server_round, replies):
        metrics = super().aggregate_evaluate(server_round, replies)
        self.history.append((server_round, metrics["loss"]))
        return metrics


def evaluate(server_round, arrays):
    return MetricRecord({"loss": float(np.mean((arrays["w"].numpy() - TRUTH) ** 2))})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(Checkpointing())
        with tempfile.TemporaryDirectory() as folder:
            strategy.set_save_path(folder)
            result = strategy.start(
                grid=grid,
                initial_arrays=ArrayRecord({"w": Array(np.zeros(4))}),
                train_config=ConfigRecord({"lr": 0.1}),
                num_rounds=8,
                evaluate_fn=evaluate,
            )
            with np.load(Path(folder) / "best.npz") as best:
                assert np.mean((best["w"] - TRUTH) ** 2) < np.mean(TRUTH**2)
        assert strategy.history
        assert result.train_metrics_clientapp[1]["best"] >= strategy.best

    return app
