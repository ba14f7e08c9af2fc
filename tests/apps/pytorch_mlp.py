"""PyTorch: a perceptron on handwritten digits."""

from functools import cache

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from torch import nn

client = ClientApp()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@cache
def load(partition, of):
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32) / 16
    y = torch.tensor(digits.target)
    return x[:1500][partition::of], y[:1500][partition::of], x[1500:], y[1500:]


@client.train()
def train(msg, context):
    model = net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    x, y, _, _ = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    optimizer = torch.optim.SGD(model.parameters(), lr=msg.content["config"]["lr"], momentum=0.9)
    for batch in torch.arange(len(x)).split(32):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
    metrics = MetricRecord({"train_loss": loss.item(), "num-examples": len(x)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)


def evaluate(server_round, arrays):
    model = net()
    model.load_state_dict(arrays.to_torch_state_dict())
    _, _, x, y = load(0, 1)
    with torch.no_grad():
        return MetricRecord({"loss": nn.functional.cross_entropy(model(x), y).item()})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedAvg(fraction_evaluate=0.0))
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(net().state_dict()),
            train_config=ConfigRecord({"lr": 0.05}),
            num_rounds=6,
            evaluate_fn=evaluate,
        )

    return app
