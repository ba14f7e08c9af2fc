"""A run of Flower's rounds that dies and is resumed goes on after its last round."""

import random
from dataclasses import asdict

import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedagent.callbacks import Callback
from fedagent.errors import CheckpointError
from fedagent.journal import Checkpoints
from fedagent.simulation import Lognormal
from fedagent.strategies import Synchronous
from fedagent.wire.records import digest
from tests.proxy.test_wall_clock import ThreadGrid
from tests.toy import Log, model, run

FLEET = Lognormal(num_nodes=6, seed=3)
ROUNDS = 11


class Killed(BaseException):
    """What ends a process without a word."""


class Kill(Callback):
    def __init__(self, at_round: int) -> None:
        self.at_round = at_round

    def on_version(self, statistics):
        if statistics.server_round == self.at_round:
            raise Killed


class Decaying(FedAvg):
    """Changes its configuration from round to round, as Flower's tutorial does."""

    def configure_train(self, server_round, arrays, config, grid):
        config["lr"] *= 0.9
        return super().configure_train(server_round, arrays, config, grid)


STRATEGIES = {
    "fedavg": lambda: (FedAvg(fraction_train=0.5), {}),
    "fedadam": lambda: (FedAdam(eta=0.1, fraction_train=0.5), {}),
    "decaying": lambda: (Decaying(), {}),
    "over-selection": lambda: (FedAvg(fraction_train=0.5), {"over_selection": 1.5}),
    "deadline": lambda: (FedAvg(), {"deadline_percentile": 60.0}),
}


def ended(name, folder=None, callbacks=(), resume=False, every=3):
    random.seed(0)
    torch.manual_seed(0)
    saving = Checkpoints(folder, "versions", every, resume=resume) if folder else None
    strategy, options = STRATEGIES[name]()
    log = Log()
    observed = Synchronous(strategy, callbacks=[log, *callbacks], checkpoint=saving, **options)

    def evaluate(server_round, arrays):
        return MetricRecord({"weight": float(arrays["weight"].numpy().sum())})

    result = run(observed, FLEET, rounds=ROUNDS, evaluate_fn=evaluate).result
    told = [
        dict(d)
        for d in (
            result.train_metrics_clientapp,
            result.evaluate_metrics_clientapp,
            result.evaluate_metrics_serverapp,
        )
    ]
    assert not set(vars(strategy)) & {"configure_train", "aggregate_train", "aggregate_evaluate"}
    statistics = asdict(log.statistics) | {"wall_s": None}
    return (digest(result.arrays), statistics, told, result.end), log.versions


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_killed_run_ends_as_if_nothing_had_happened(name, tmp_path):
    whole, _ = ended(name)
    with pytest.raises(Killed):
        ended(name, tmp_path, [Kill(8)])
    resumed, versions = ended(name, tmp_path, resume=True)
    assert resumed == whole
    assert [server_round for server_round, *_ in versions] == [7, 8, 9, 10, 11]


def test_saving_changes_nothing_and_a_run_that_is_over_stays_so(tmp_path):
    whole, _ = ended("fedavg")
    assert ended("fedavg", tmp_path, every=1)[0] == whole
    assert ended("fedavg", tmp_path, resume=True)[0] == whole


def test_another_strategy_says_so(tmp_path):
    ended("fedavg", tmp_path)
    with pytest.raises(CheckpointError, match="of another rule"):
        ended("fedadam", tmp_path, resume=True)


def test_on_a_real_fleet_every_round_is_saved(tmp_path):
    def start(callbacks, resume):
        grid = ThreadGrid(3, 0.0)
        saving = Checkpoints(tmp_path, "versions", 100, resume=resume)
        strategy = FedAvg(fraction_evaluate=0.0)
        observed = Synchronous(strategy, callbacks=callbacks, checkpoint=saving)
        return observed.start(grid, ArrayRecord(model().state_dict()), num_rounds=5)

    with pytest.raises(Killed):
        start([Kill(4)], resume=False)
    log = Log()
    result = start([log], resume=True)
    assert [server_round for server_round, *_ in log.versions] == [4, 5]
    assert list(result.train_metrics_clientapp) == [1, 2, 3, 4, 5]
    assert log.statistics.num_updates == 15
