"""LoRA: a frozen network that every node has, and adapters of low rank that travel."""

from functools import cache

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from torch import nn

client = ClientApp()


class Adapted(nn.Linear):
    """A frozen layer W with W + B A in its place."""

    def __init__(self, inputs, outputs, rank=4):
        super().__init__(inputs, outputs)
        self.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x):
        return super().forward(x) + x @ self.lora_a.T @ self.lora_b.T


def net():
    torch.manual_seed(0)  # stands for the weights that everybody has downloaded
    return nn.Sequential(Adapted(64, 64), nn.ReLU(), Adapted(64, 10))


def adapters(model):
    return ArrayRecord({k: v for k, v in model.state_dict().items() if "lora" in k})


def with_adapters(record):
    model = net()
    model.load_state_dict(record.to_torch_state_dict(), strict=False)
    return model


@cache
def load(partition, of):
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32)[partition::of] / 16
    return x, torch.tensor(digits.target)[partition::of]


@client.train()
def train(msg, context):
    model = with_adapters(msg.content["arrays"])
    x, y = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1, momentum=0.9)
    for batch in torch.arange(len(x)).split(32):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
    metrics = MetricRecord({"train_loss": loss.item(), "num-examples": len(x)})
    content = RecordDict({"arrays": adapters(model), "metrics": metrics})
    return Message(content, reply_to=msg)


def evaluate(server_round, arrays):
    x, y = load(0, 1)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(with_adapters(arrays)(x), y)
    return MetricRecord({"loss": loss.item()})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedAvg(fraction_evaluate=0.0))
        initial = adapters(net())
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=6, evaluate_fn=evaluate)

    return app
