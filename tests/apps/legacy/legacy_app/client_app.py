"""A ClientApp with a client_fn and a NumPyClient."""

from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import Context
from legacy_app.task import loss_and_accuracy, partition, train


class FlowerClient(NumPyClient):
    def __init__(self, data, run_config) -> None:
        self.features, self.labels = data
        self.run_config = run_config

    def fit(self, parameters, config):
        weights = train(
            parameters[0],
            self.features,
            self.labels,
            lr=config["lr"],
            epochs=self.run_config["local-epochs"],
            noise=self.run_config["data.noise"],
        )
        return [weights], len(self.labels), {}

    def evaluate(self, parameters, config):
        loss, accuracy = loss_and_accuracy(parameters[0], self.features, self.labels)
        return loss, len(self.labels), {"accuracy": accuracy}


def client_fn(context: Context):
    node = context.node_config
    data = partition(node["partition-id"], node["num-partitions"])
    return FlowerClient(data, context.run_config).to_client()


app = ClientApp(client_fn=client_fn)
