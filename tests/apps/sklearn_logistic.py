"""scikit-learn: LogisticRegression, whose coefficients travel."""

import warnings
from functools import cache

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

client = ClientApp()


@cache
def load(partition, of):
    data = load_iris()
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    return x[partition::of], data.target[partition::of]


def model_of(record):
    model = LogisticRegression(warm_start=True, max_iter=3, C=10.0)
    model.coef_, model.intercept_ = record.to_numpy_ndarrays()
    model.classes_ = np.arange(3)
    return model


@client.train()
def train(msg, context):
    model = model_of(msg.content["arrays"])
    x, y = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    loss = log_loss(y, model.predict_proba(x))
    metrics = MetricRecord({"train-logloss": loss, "num-examples": len(x)})
    arrays = ArrayRecord([model.coef_, model.intercept_])
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


def evaluate(server_round, arrays):
    x, y = load(0, 1)
    return MetricRecord({"loss": log_loss(y, model_of(arrays).predict_proba(x))})


def server(wrap):
    app = ServerApp()

    @app.main()
    def main(grid, context):
        strategy = wrap(FedAvg(fraction_evaluate=0.0))
        initial = ArrayRecord([np.zeros((3, 4)), np.zeros(3)])
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=6, evaluate_fn=evaluate)

    return app
