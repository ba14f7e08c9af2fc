"""NumPy: linear regression, its arrays in a list without names."""

from functools import cache

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_diabetes

client = ClientApp()


@cache
def load(partition, of):
    data = load_diabetes()
    x, y = data.data * 20, (data.target - data.target.mean()) / data.target.std()
    return x[partition::of], y[partition::of]


def mse(x, y, w, b):
    return float(np.mean((x @ w + b - y) ** 2))


@client.train()
def train(msg, context):
    w, b = msg.content["arrays"].to_numpy_ndarrays()
    x, y = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    for _ in range(5):
        error = x @ w + b - y
        w, b = w - 0.05 * x.T @ error / len(x), b - 0.05 * error.mean(keepdims=True)
    metrics = MetricRecord({"mse": mse(x, y, w, b), "num-examples": len(x)})
    content = RecordDict({"arrays": ArrayRecord([w, b]), "metrics": metrics})
    return Message(content, reply_to=msg)


@client.evaluate()
def test(msg, context):
    x, y = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    loss = mse(x, y, *msg.content["arrays"].to_numpy_ndarrays())
    metrics = MetricRecord({"mse": loss, "num-examples": len(x)})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)


def evaluate(server_round, arrays):
    return MetricRecord({"loss": mse(*load(0, 1), *arrays.to_numpy_ndarrays())})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedAvg(fraction_evaluate=0.5))
        initial = ArrayRecord([np.zeros(10), np.zeros(1)])
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=8, evaluate_fn=evaluate)

    return app
