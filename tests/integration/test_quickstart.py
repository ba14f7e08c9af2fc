"""Flower's users first: their ClientApp runs unmodified, only the strategy line changes."""

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedagent import FedAsync, FedBuff, asynchronous, run_simulation
from fedagent.simulation import Lognormal
from tests.integration.quickstart import client_app, server_app

STRATEGIES = {
    "FedAvg": lambda: FedAvg(fraction_train=0.5),
    "FedBuff": lambda: FedBuff(fraction_train=0.5),
    "FedAsync": lambda: FedAsync(fraction_train=0.5),
    "FedAdam": lambda: asynchronous(FedAdam(fraction_train=0.5, eta=0.02)),
}
ROUNDS = {"FedAvg": 20, "FedBuff": 20, "FedAsync": 30, "FedAdam": 30}


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_unmodified_quickstart_trains(name):
    results = []
    simulation = run_simulation(
        server_app(STRATEGIES[name](), results),
        client_app,
        num_supernodes=10,
        fleet=Lognormal(),
        seed=1,
        run_config={"num-server-rounds": ROUNDS[name], "local-epochs": 2},
    )
    result = results[0]
    accuracies = [m["eval_acc"] for _, m in sorted(result.evaluate_metrics_clientapp.items())]
    losses = [m["train_loss"] for _, m in sorted(result.train_metrics_clientapp.items())]
    assert len(losses) == ROUNDS[name]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:2])
    assert accuracies[-1] > 0.85
    assert result.arrays["norm.num_batches_tracked"].numpy() > 0
    assert simulation.statistics.now_s > 0
