"""Flower's differential privacy: clipped at the server, with noise, around FedAvg."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

client = ClientApp()
TRUTH = np.array([1.0, -1.0, 0.5])


@client.train()
def train(msg, context):
    w = msg.content["arrays"]["w"].numpy()
    random = np.random.default_rng(context.node_config["partition-id"])
    x = random.normal(size=(40, 3))
    y = x @ TRUTH + 0.1 * random.normal(size=40)
    for _ in range(3):
        w = w - 0.1 * x.T @ (x @ w - y) / len(x)
    metrics = MetricRecord({"loss": float(np.mean((x @ w - y) ** 2)), "num-examples": len(x)})
    content = RecordDict({"arrays": ArrayRecord({"w": Array(w)}), "metrics": metrics})
    return Message(content, reply_to=msg)


def evaluate(server_round, arrays):
    return MetricRecord({"loss": 0.1 + float(np.mean((arrays["w"].numpy() - TRUTH) ** 2))})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        np.random.seed(0)  # Flower's noise comes from there
        strategy = wrap(
            DifferentialPrivacyServerSideFixedClipping(
                FedAvg(fraction_evaluate=0.0),
                noise_multiplier=0.05,
                clipping_norm=1.0,
                num_sampled_clients=NUM_CLIENTS,
            )
        )
        initial = ArrayRecord({"w": Array(np.zeros(3))})
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=8, evaluate_fn=evaluate)

    return app


NUM_CLIENTS = 2  # at least so many replies, which a whole round and a small buffer have
