"""A ClientApp and a ServerApp in the style of Flower's PyTorch quickstart; knows no fedagent.

The strategy is the only thing `test_quickstart.py` changes.
"""

from functools import cache

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 32)
        self.norm = nn.BatchNorm1d(32)
        self.output = nn.Linear(32, 10)

    def forward(self, x):
        return self.output(F.relu(self.norm(self.hidden(x))))


digits = cache(load_digits)  # reading them takes longer than an epoch


def load_data(partition_id: int, num_partitions: int) -> tuple[DataLoader, DataLoader]:
    images, labels = digits(return_X_y=True)
    mine = slice(partition_id, None, num_partitions)
    dataset = TensorDataset(
        torch.tensor(images[mine] / 16, dtype=torch.float32), torch.tensor(labels[mine])
    )
    train, test = torch.utils.data.random_split(
        dataset, [0.8, 0.2], generator=torch.Generator().manual_seed(42)
    )
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=32)


client_app = ClientApp()


@client_app.train()
def train(msg: Message, context: Context) -> Message:
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    trainloader, _ = load_data(
        context.node_config["partition-id"], context.node_config["num-partitions"]
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=msg.content["config"]["lr"], momentum=0.9)
    model.train()
    running_loss = 0.0
    for _ in range(context.run_config["local-epochs"]):
        for x, y in trainloader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    metrics = {
        "train_loss": running_loss / len(trainloader),
        "num-examples": len(trainloader.dataset),
    }
    content = RecordDict(
        {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)}
    )
    return Message(content=content, reply_to=msg)


@client_app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    model.eval()
    _, testloader = load_data(
        context.node_config["partition-id"], context.node_config["num-partitions"]
    )
    correct = sum((model(x).argmax(1) == y).sum().item() for x, y in testloader)
    metrics = {
        "eval_acc": correct / len(testloader.dataset),
        "num-examples": len(testloader.dataset),
    }
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)


def server_app(strategy: Strategy, results: list) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        arrays = ArrayRecord(Net().state_dict())
        results.append(
            strategy.start(
                grid=grid,
                initial_arrays=arrays,
                train_config=ConfigRecord({"lr": 0.05}),
                num_rounds=context.run_config["num-server-rounds"],
            )
        )

    return app
