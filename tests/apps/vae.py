"""A variational autoencoder on handwritten digits."""

from functools import cache

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from torch import nn

client = ClientApp()


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(32, 4), nn.Linear(32, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 64))

    def loss(self, x):
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        reconstruction = nn.functional.binary_cross_entropy_with_logits(
            self.decoder(z), x, reduction="sum"
        )
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        return (reconstruction + divergence) / len(x)


@cache
def load(partition, of):
    return torch.tensor(load_digits().data, dtype=torch.float32)[partition::of] / 16


@client.train()
def train(msg, context):
    model = VAE()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    x = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for batch in x.split(32):
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.backward()
        optimizer.step()
    metrics = MetricRecord({"loss": loss.item(), "num-examples": len(x)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=msg)


def evaluate(server_round, arrays):
    torch.manual_seed(1)
    model = VAE()
    model.load_state_dict(arrays.to_torch_state_dict())
    with torch.no_grad():
        return MetricRecord({"loss": model.loss(load(0, 1)).item()})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        torch.manual_seed(0)
        strategy = wrap(FedAvg(fraction_evaluate=0.0))
        initial = ArrayRecord(VAE().state_dict())
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=8, evaluate_fn=evaluate)

    return app
