"""What `run_simulation` returns is what the run did."""

import pytest
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedagent import FedAsync, FedBuff, asynchronous, run_simulation
from fedagent.simulation import Lognormal
from tests.toy import client_app, model

BUILD = {
    "FedBuff": FedBuff,
    "FedAsync": FedAsync,
    "FedAvg": lambda **o: asynchronous(FedAvg(), **o),
}


def simulated(*strategies, client=None):
    server = ServerApp()

    @server.main()
    def _main(grid, context):
        for strategy in strategies:
            strategy.start(grid, ArrayRecord(model().state_dict()), num_rounds=3)

    return run_simulation(server, client or client_app(), fleet=Lognormal(num_nodes=6)).statistics


@pytest.mark.parametrize("fraction_evaluate", [0.0, 1.0])
@pytest.mark.parametrize("name", BUILD)
def test_the_statistics_are_those_of_the_strategy(name, fraction_evaluate):
    strategy = BUILD[name](fraction_evaluate=fraction_evaluate)
    statistics = simulated(strategy)
    assert statistics is strategy.proxy.statistics
    assert statistics.num_updates == 3 * 6
    assert statistics.version >= 3
    assert statistics.is_virtual


def test_what_was_refused_is_no_update():
    def useless(partition, reply):
        if partition == 1:
            reply["metrics"]["num-examples"] = 0
        return reply

    statistics = simulated(FedBuff(fraction_evaluate=0.0), client=client_app(useless))
    assert statistics.num_updates == statistics.by_outcome()["applied"] == 3 * 6
    assert statistics.by_outcome()["rejected(num-examples)"] >= 1


def test_evaluation_after_the_end_is_no_training_time():
    alone = simulated(FedBuff(fraction_evaluate=0.0))
    examined = simulated(FedBuff(fraction_evaluate=1.0, evaluate_clients_every=1000))
    assert examined.evaluations
    assert examined.now_s == alone.now_s


def test_flowers_own_strategies_are_counted_by_the_grid():
    statistics = simulated(FedAvg(fraction_evaluate=0.0))
    assert statistics.by_outcome() == {"applied": 3 * 6}
    assert statistics.now_s > 0


def test_of_several_runs_the_last_one_counts():
    first, second = FedAsync(fraction_evaluate=0.0), FedBuff(fraction_evaluate=0.0)
    assert simulated(first, second) is second.proxy.statistics
