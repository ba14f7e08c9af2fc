"""Flower's FedAdam: softmax regression on wines, a server optimiser with a memory."""

from functools import cache

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAdam
from sklearn.datasets import load_wine
from sklearn.metrics import log_loss

client = ClientApp()


@cache
def load(partition, of):
    data = load_wine()
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    return np.c_[x, np.ones(len(x))][partition::of], data.target[partition::of]


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@client.train()
def train(msg, context):
    w = msg.content["arrays"]["w"].numpy()
    x, y = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    for _ in range(5):
        w = w - 0.1 * x.T @ (softmax(x @ w) - np.eye(3)[y]) / len(x)
    loss = log_loss(y, softmax(x @ w), labels=range(3))
    metrics = MetricRecord({"loss": loss, "num-examples": len(x)})
    arrays = ArrayRecord({"w": Array(w)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


def evaluate(server_round, arrays):
    x, y = load(0, 1)
    return MetricRecord({"loss": log_loss(y, softmax(x @ arrays["w"].numpy()))})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedAdam(eta=0.05, fraction_evaluate=0.0))
        initial = ArrayRecord({"w": Array(np.zeros((14, 3)))})
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=10, evaluate_fn=evaluate)

    return app
