"""What is said of an argument that is not of the type it is declared with."""

import functools

import numpy as np
import pytest
from flwr.app import MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedagent import AsyncStrategy, FedBuff, rules, run_simulation
from fedagent.callbacks import Callback
from fedagent.errors import ConfigurationError
from fedagent.rules.staleness import polynomial
from fedagent.scheduling import RoundRobin
from fedagent.simulation import Equal, Runtime
from fedagent.stopping import MaxUpdates


class Silent(Callback):
    """Hears everything and does nothing."""


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("scheduler", RoundRobin, "scheduler=the class RoundRobin must be an instance of"),
        ("scheduler", None, "scheduler=None must be an instance of Scheduler"),
        ("stopping", MaxUpdates(3), "must be a list of a function"),
        ("stopping", [MaxUpdates], "must be a list of a function"),
        ("callbacks", Silent(), "must be a list of an instance of Callback"),
        ("callbacks", [Silent], "must be a list of an instance of Callback"),
        ("per_node", 3, "per_node=3 must be an instance of PerNode or None"),
        ("robust", 3, "robust=3 must be an instance of Robust"),
        ("secure", True, "secure=True must be an instance of SecureAggregation or None"),
        ("checkpoint", "daily", "checkpoint='daily' must be an instance of Checkpoints or None"),
        ("backoff", 3, "backoff=3 must be an instance of Backoff"),
        ("codec", 3, "codec=3 must be an instance of Coding or str or a list of str or None"),
        ("carried", ["*.pointer"], "must be a mapping of 'count' or 'newest' or 'keep'"),
        ("carried", {"*.pointer": "last"}, "must be a mapping of 'count' or 'newest' or 'keep'"),
        ("cohort", 2.5, "cohort=2.5 must be int or None"),
        ("evaluate_every", 2.5, "evaluate_every=2.5 must be int"),
        ("fraction_train", "all", "fraction_train='all' must be float"),
        ("publish_every_s", "1", "publish_every_s='1' must be float or None"),
        ("train_metrics_aggr_fn", 3, "train_metrics_aggr_fn=3 must be a function or None"),
        ("staleness", 0.5, "staleness=0.5 must be a function: take one from"),
    ],
)
def test_an_option_of_another_type_is_named_with_the_type_that_it_must_be(option, value, says):
    with pytest.raises(ConfigurationError) as refused:
        FedBuff(**{option: value})
    assert says in str(refused.value)


def test_options_of_their_types_pass_also_as_subclasses_tuples_and_numpys_numbers():
    FedBuff(
        scheduler=RoundRobin(),
        stopping=(MaxUpdates(3), lambda statistics: None),
        callbacks=[Silent()],
        cohort=np.int64(3),
        fraction_train=np.float32(0.5),
        deadline_s=10,
        codec=["topk:0.05", "int4"],
        carried={"*.pointer": "newest"},
        staleness=functools.partial(polynomial, a=0.3),
        train_metrics_aggr_fn=lambda records, key: MetricRecord(),
    )


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (FedAvg(), "a strategy of Flower's is wrapped, asynchronous(FedAvg(...))"),
        (FedBuff(), "it is asynchronous already"),
        (rules.CA2FL, "rule=the class CA2FL must be an instance of Rule"),
    ],
)
def test_what_is_no_rule_is_told_what_to_do(rule, says):
    with pytest.raises(ConfigurationError) as refused:
        AsyncStrategy(rule)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "value", "says"),
    [
        ("fleet", "lognormal", "fleet='lognormal' must be an instance of Fleet or None"),
        ("fleet", Equal, "fleet=the class Equal must be an instance of Fleet or None"),
        ("runtime", 2, "runtime=2 must be an instance of Runtime or None"),
        ("runtime", Runtime, "runtime=the class Runtime must be an instance of Runtime or None"),
        ("seed", "one", "seed='one' must be int"),
    ],
)
def test_a_simulation_refuses_what_is_no_fleet_runtime_or_seed(argument, value, says):
    with pytest.raises(ConfigurationError) as refused:
        run_simulation(ServerApp(), ClientApp(), 2, **{argument: value})
    assert says in str(refused.value)
