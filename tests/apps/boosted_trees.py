"""Boosted stumps in XGBoost's JSON, for Flower's FedXgbBagging and FedXgbCyclic.

The model is bytes that grow. A client boosts the model that it gets and returns its new tree alone
(bagging) or the whole model (cyclic), as XGBoost's own example does.
"""

import json
from functools import cache

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic
from sklearn.datasets import load_diabetes
from sklearn.tree import DecisionTreeRegressor

client = ClientApp()


@cache
def load(partition, of):
    data = load_diabetes()
    y = (data.target - data.target.mean()) / data.target.std()
    return data.data[partition::of], y[partition::of]


def trees_of(record):
    """Return the trees in a record of bytes, an empty one before the first round."""
    (array,) = record.to_numpy_ndarrays()
    if not array.size:
        return []
    return json.loads(array.tobytes())["learner"]["gradient_booster"]["model"]["trees"]


def record_of(trees):
    """Return trees as XGBoost writes them down."""
    model = {
        "gbtree_model_param": {"num_trees": str(len(trees)), "num_parallel_tree": "1"},
        "iteration_indptr": list(range(len(trees) + 1)),
        "tree_info": [0] * len(trees),
        "trees": trees,
    }
    text = json.dumps({"learner": {"gradient_booster": {"model": model}}})
    return ArrayRecord([np.frombuffer(text.encode(), dtype=np.uint8)])


def predict(trees, x):
    total = np.zeros(len(x))
    for tree in trees:
        is_left = x[:, tree["feature"]] <= tree["threshold"]
        total += np.where(is_left, tree["left"], tree["right"])
    return total


@client.train()
def train(msg, context):
    x, y = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    trees = trees_of(msg.content["arrays"])
    fitted = DecisionTreeRegressor(max_depth=1).fit(x, y - predict(trees, x)).tree_
    left, right = (0.1 * fitted.value[i].item() for i in (1, 2))
    stump = {"id": 0, "feature": int(fitted.feature[0]), "threshold": float(fitted.threshold[0])}
    stump |= {"left": left, "right": right}
    is_bagging = msg.content["config"]["train-method"] == "bagging"
    metrics = MetricRecord({"num-examples": len(x)})
    arrays = record_of([stump] if is_bagging else [*trees, stump])
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


def evaluate(server_round, arrays):
    x, y = load(0, 1)
    loss = float(np.mean((predict(trees_of(arrays), x) - y) ** 2))
    return MetricRecord({"loss": loss, "trees": len(trees_of(arrays))})


def server_of(method, num_rounds):
    def server(wrap):
        app = ServerApp()

        @app.main()
        def main(grid, context):
            kind = FedXgbBagging if method == "bagging" else FedXgbCyclic
            strategy = wrap(kind(fraction_evaluate=0.0))
            strategy.start(
                grid=grid,
                initial_arrays=ArrayRecord([np.frombuffer(b"", dtype=np.uint8)]),
                train_config=ConfigRecord({"train-method": method}),
                num_rounds=num_rounds,
                evaluate_fn=evaluate,
            )

        return app

    return server


bagging, cyclic = server_of("bagging", 8), server_of("cyclic", 24)
