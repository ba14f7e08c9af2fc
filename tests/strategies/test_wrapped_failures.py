"""An exception of a wrapped strategy costs a version; what cannot be wrapped is refused."""

import logging

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    QFedAvg,
)

from fedagent import AsyncStrategy, FedBuff, asynchronous
from fedagent._flower import identify_process
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, ModelSpec
from fedagent.nodes.geography import Blocks
from fedagent.rules import FedAsync, Hierarchical
from fedagent.rules.staleness import constant
from fedagent.simulation import Equal, Lognormal
from fedagent.strategies.flower_rule import FlowerRule
from fedagent.strategies.synchronous import Synchronous
from fedagent.update import Update
from tests.toy import Log, client_app, run

OPTIONS = {"fraction_evaluate": 0.0}


def model_of(*values, **counters):
    counts = {name: np.array([value]) for name, value in counters.items()}
    arrays = {"x": np.array(values), **counts}
    return FlatModel(ModelSpec.of(arrays), arrays)


def update(*delta, **counters):
    identify_process(1, 1, 1)
    return Update(
        7,
        torch.tensor(delta, dtype=torch.float64),
        torch.zeros(len(delta), dtype=torch.float64),
        0,
        carried={name: torch.tensor([value]) for name, value in counters.items()},
        metrics={"num-examples": 1},
    )


class Moody(FedAdam):
    """FedAdam that gives way to `mood` when it has aggregated."""

    def __init__(self, mood, **settings):
        super().__init__(**settings)
        self.mood = mood

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        return self.mood(arrays), metrics


class Late(FedAvg):
    """FedAvg that fails until it has been tried twice."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.tries = []

    def aggregate_train(self, server_round, replies):
        self.tries.append(server_round)  # in place, so that it outlives the attempt
        if len(self.tries) == 1:
            raise OSError("not yet")
        return super().aggregate_train(server_round, replies)


def raising(arrays):
    raise KeyError("train_loss")


def renamed(arrays):
    return ArrayRecord({"other": arrays["x"]})


def reshaped(arrays):
    return ArrayRecord({"x": Array(arrays["x"].numpy()[:1])})


def of_words(arrays):
    return ArrayRecord({"x": Array(np.array(["a", "b"]))})


@pytest.mark.parametrize("mood", [raising, renamed, reshaped, of_words])
def test_a_version_that_fails_leaves_no_trace(mood):
    """Model, momentum and later versions are those of a run without the lost updates."""
    disturbed, calm = Moody(mood, **OPTIONS), FedAdam(**OPTIONS)
    model, same = model_of(1.0, -1.0, count=3), model_of(1.0, -1.0, count=3)
    rule, other = FlowerRule(disturbed, 2, constant), FlowerRule(calm, 2, constant)
    for _ in range(2):
        assert not rule.receive(model, update(9.0, 9.0, count=50))
    assert model.vector.tolist() == [1.0, -1.0]
    assert model.carried["count"].tolist() == [3]
    assert (rule.pending, dict(rule.lost)) == (0, {"strategy-raised": 2})
    disturbed.mood = lambda arrays: arrays
    for step in (0.5, 0.25, -0.5, 0.125):
        published = [
            r.receive(m, update(step, 1.0, count=4)) for r, m in ((rule, model), (other, same))
        ]
        assert published[0] == published[1]
    assert model.vector.numpy().tobytes() == same.vector.numpy().tobytes()
    assert model.carried["count"].tolist() == [4]
    assert {k: v.tolist() for k, v in disturbed.m_t.items()} == {
        k: v.tolist() for k, v in calm.m_t.items()
    }


def test_a_round_of_which_nothing_is_made_is_counted_too():
    class Refusing(FedAvg):
        def aggregate_train(self, server_round, replies):
            return None, None

    rule, model = FlowerRule(Refusing(**OPTIONS), 3), model_of(1.0)
    assert [rule.receive(model, update(1.0)) for _ in range(3)] == [False] * 3
    assert dict(rule.lost) == {"nothing-aggregated": 3}


def test_a_strategy_that_only_raises_ends_the_run_with_its_own_exception():
    rule, model = FlowerRule(Moody(raising, **OPTIONS), 1), model_of(1.0)
    for _ in range(9):
        rule.receive(model, update(1.0))
    with pytest.raises(KeyError, match="train_loss"):
        rule.receive(model, update(1.0))


def test_a_version_in_between_forgives_what_was_lost():
    moody = Moody(raising, **OPTIONS)
    rule, model = FlowerRule(moody, 1), model_of(1.0)
    for _ in range(3):
        moody.mood = raising
        assert not any(rule.receive(model, update(1.0)) for _ in range(9))
        moody.mood = lambda arrays: arrays
        assert rule.receive(model, update(1.0))
    assert dict(rule.lost) == {"strategy-raised": 27}


def test_a_reply_holds_the_counters_of_its_own_client():
    seen = []

    class Counting(FedAvg):
        def aggregate_train(self, server_round, replies):
            seen.extend(int(r.content["arrays"]["count"].numpy()[0]) for r in replies)
            return super().aggregate_train(server_round, replies)

    rule, model = FlowerRule(Counting(**OPTIONS), 3), model_of(1.0, count=3)
    for count in (8, 4, 6):
        rule.receive(model, update(1.0, count=count))
    assert seen == [8, 4, 6]
    assert model.carried["count"].tolist() == [8]


def test_a_run_that_only_loses_versions_ends_as_failed():
    log, strategy = Log(), Moody(raising, **OPTIONS)
    with pytest.raises(KeyError, match="train_loss"):
        run(asynchronous(strategy, buffer_size=2, callbacks=[log]), Equal(num_nodes=2), rounds=99)
    assert log.end.kind == "failed"
    assert dict(log.statistics.lost) == {"strategy-raised": 18}


def test_what_regions_lose_adds_up():
    """An aggregation of two updates is lost in each of two regions."""
    regions = Blocks(num_regions=2, num_nodes=4)
    log = Log()
    rule = Hierarchical(regions, edge=lambda: FlowerRule(Late(**OPTIONS), 2), root=FedAsync(1.0))
    strategy = AsyncStrategy(rule, callbacks=[log], **OPTIONS)
    run(strategy, Equal(num_nodes=4), rounds=3)
    assert dict(log.statistics.lost) == {"strategy-raised": 4}


def test_a_failure_is_said_once_with_its_place(caplog):
    rule, model = FlowerRule(Moody(raising, **OPTIONS), 1), model_of(1.0)
    with caplog.at_level(logging.DEBUG, "flwr.fedagent"):
        for _ in range(5):
            rule.receive(model, update(1.0))
    loud = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(loud) == 1
    assert "Moody.aggregate_train raised KeyError at " in loud[0].getMessage()
    assert "test_wrapped_failures.py:" in loud[0].getMessage()


def test_lost_updates_are_kept_in_its_state():
    rule, model = FlowerRule(Moody(raising, **OPTIONS), 1), model_of(1.0)
    rule.receive(model, update(1.0))
    other = FlowerRule(FedAvg(**OPTIONS), 1)
    other.load_state_dict(rule.state_dict())
    assert dict(other.lost) == {"strategy-raised": 1}


def test_a_zero_update_under_flower_s_clipping_costs_a_version():
    """|Delta| = 0, and the clipping factor divides by it."""
    private = DifferentialPrivacyServerSideFixedClipping(FedAvg(**OPTIONS), 0.0, 0.5, 2)
    model = model_of(0.0, 0.0)
    rule = FlowerRule(private, 2, constant)
    rule.receive(model, update(0.0, 0.0))
    is_published = rule.receive(model, update(0.1, 0.1))
    assert (is_published, model.vector.tolist()) == (False, [0.0, 0.0])
    rule.receive(model, update(0.1, 0.1))
    assert rule.receive(model, update(0.1, 0.1))
    assert dict(rule.lost) == {"strategy-raised": 2}


def test_a_node_without_the_loss_does_not_end_qfedavg():
    def forgetful(partition, reply):
        if partition == 0:
            reply["metrics"] = MetricRecord({"num-examples": 10})
        return reply

    log = Log()
    fair = QFedAvg(client_learning_rate=0.1, train_loss_key="loss", **OPTIONS)
    strategy = asynchronous(fair, buffer_size=3, callbacks=[log])
    run(strategy, Lognormal(num_nodes=8), rounds=8, client=client_app(forgetful))
    statistics = log.statistics
    assert log.end.kind == "completed"
    assert statistics.lost["strategy-raised"] >= 3
    assert statistics.version >= 8
    in_versions = statistics.num_updates - statistics.lost["strategy-raised"] - statistics.buffered
    assert 3 * (statistics.version - 1) < in_versions <= 3 * statistics.version  # the last: a rest


def test_an_evaluation_that_cannot_be_aggregated_is_left_out(caplog):
    class Careless(FedAvg):
        def aggregate_evaluate(self, server_round, replies):
            raise ZeroDivisionError

    outcome = run(asynchronous(Careless(), buffer_size=4), Equal(num_nodes=4), rounds=2)
    assert len(outcome.result.train_metrics_clientapp) == 2
    assert not outcome.result.evaluate_metrics_clientapp
    assert "Careless.aggregate_evaluate raised" in caplog.text


def test_a_configuration_that_raises_ends_the_run():
    """As a privacy budget that is spent does: nothing may go on without it."""

    class Spent(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            if server_round == 3:
                raise RuntimeError("budget")
            return super().configure_train(server_round, arrays, config, grid)

    with pytest.raises(RuntimeError, match="budget"):
        run(asynchronous(Spent(**OPTIONS), buffer_size=2), Equal(num_nodes=2), rounds=5)


def legacy():
    from flwr.server.strategy import FedAvg as LegacyFedAvg

    return LegacyFedAvg()


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: FedAvg, r"FedAvg is a class.*asynchronous\(FedAvg\(\.\.\.\)\)"),
        (FedBuff, "is asynchronous already"),
        (lambda: asynchronous(FedAvg()), "is asynchronous already"),
        (lambda: Synchronous(FedAvg()), "pass the strategy that is inside"),
        (legacy, "FedAvg is a strategy of Flower's legacy API.*flwr.serverapp.strategy"),
        (lambda: None, "NoneType is no strategy"),
        (lambda: "fedavg", "str is no strategy.*FedAvg()"),
    ],
    ids=["class", "asynchronous", "wrapped", "synchronous", "legacy", "none", "word"],
)
def test_what_cannot_be_wrapped_is_refused_in_a_sentence(build, said):
    with pytest.raises(ConfigurationError, match=said):
        asynchronous(build())
