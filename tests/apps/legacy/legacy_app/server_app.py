"""A ServerApp with a server_fn, and FedAvg of flwr.server.strategy."""

import hashlib
import json
from pathlib import Path

from flwr.common import Context, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from legacy_app.task import initial_weights, load_data, loss_and_accuracy


def weighted_average(metrics):
    total = sum(count for count, _ in metrics)
    return {"accuracy": sum(count * m["accuracy"] for count, m in metrics) / total}


def server_fn(context: Context) -> ServerAppComponents:
    run_config = context.run_config
    rounds = []

    def evaluate(server_round, parameters, config):
        loss, accuracy = loss_and_accuracy(parameters[0], *load_data())
        digest = hashlib.sha256(parameters[0].tobytes()).hexdigest()
        rounds.append({"loss": loss, "accuracy": accuracy, "sha256": digest})
        if run_config["report"]:
            Path(run_config["report"]).write_text(json.dumps(rounds))
        return loss, {"accuracy": accuracy}

    strategy = FedAvg(
        fraction_fit=run_config["fraction-fit"],
        fraction_evaluate=0.5,
        min_available_clients=2,
        evaluate_fn=evaluate,
        evaluate_metrics_aggregation_fn=weighted_average,
        on_fit_config_fn=lambda server_round: {"lr": run_config["lr"] / server_round**0.5},
        initial_parameters=ndarrays_to_parameters(initial_weights()),
    )
    config = ServerConfig(num_rounds=run_config["num-server-rounds"])
    return ServerAppComponents(strategy=strategy, config=config)


app = ServerApp(server_fn=server_fn)
