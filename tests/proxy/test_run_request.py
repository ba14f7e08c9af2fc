"""What start() is given is checked before anything is sent."""

import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg

from fedagent import FedBuff, asynchronous
from fedagent.errors import ConfigurationError
from fedagent.simulation import Equal
from fedagent.strategies import Synchronous
from tests.toy import run

STRATEGIES = [FedBuff, lambda: asynchronous(FedAvg())]
WRONG = {
    "initial_arrays is of type dict, not ArrayRecord": {"initial_arrays": {"w": torch.zeros(3)}},
    "initial_arrays is of type OrderedDict": {"initial_arrays": torch.nn.Linear(2, 1).state_dict()},
    "train_config is of type dict, not ConfigRecord": {"train_config": {"lr": 0.1}},
    "evaluate_config is of type dict": {"evaluate_config": {}},
    "num_rounds='3' must be a whole number": {"num_rounds": "3"},
    "num_rounds=-1 must": {"num_rounds": -1},
    "timeout=0 must be a positive number": {"timeout": 0},
    "timeout=None must": {"timeout": None},
    "evaluate_fn=0.5 is no function": {"evaluate_fn": 0.5},
    "should_stop=True is no function": {"should_stop": True},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("says", WRONG)
def test_an_argument_of_another_type_is_refused_by_name(strategy, says):
    arguments = {"initial_arrays": ArrayRecord({"w": torch.zeros(3)}), **WRONG[says]}
    with pytest.raises(ConfigurationError) as refusal:
        strategy().start(None, **arguments)
    assert says in str(refusal.value)


@pytest.mark.parametrize("returned", [0.5, {"accuracy": 0.5}, (0.5, {"accuracy": 0.5})])
@pytest.mark.parametrize("strategy", [*STRATEGIES, lambda: Synchronous(FedAvg())])
def test_what_evaluate_fn_returns_is_checked(strategy, returned):
    with pytest.raises(
        ConfigurationError, match=f"evaluate_fn returned a {type(returned).__name__}"
    ):
        run(strategy(), Equal(num_nodes=2), rounds=1, evaluate_fn=lambda *_: returned)


def test_evaluate_fn_may_return_nothing_now_and_then():
    def evaluate(server_round, arrays):
        return MetricRecord({"n": server_round}) if server_round % 2 else None

    outcome = run(FedBuff(), Equal(num_nodes=2), rounds=3, evaluate_fn=evaluate)
    assert list(outcome.result.evaluate_metrics_serverapp) == [1, 3]
