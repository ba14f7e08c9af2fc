"""Tabular data: batch normalisation, and with it an integer counter in the model."""

from functools import cache

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_breast_cancer
from torch import nn

client = ClientApp()


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm1d(30), nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0)
    )


@cache
def load(partition, of):
    data = load_breast_cancer()
    x = torch.tensor(data.data, dtype=torch.float32)
    return x[partition::of], torch.tensor(data.target, dtype=torch.float32)[partition::of]


@client.train()
def train(msg, context):
    model = net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    x, y = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        for batch in torch.arange(len(x)).split(24):
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
    metrics = MetricRecord({"loss": loss.item(), "num-examples": len(x)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=msg)


def evaluate(server_round, arrays):
    model = net().eval()
    model.load_state_dict(arrays.to_torch_state_dict())
    x, y = load(0, 1)
    with torch.no_grad():
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
    return MetricRecord({"loss": loss.item()})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedAvg(fraction_evaluate=0.0))
        initial = ArrayRecord(net().state_dict())
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=6, evaluate_fn=evaluate)

    return app
