import random

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
)

from fedagent import asynchronous
from fedagent._flower import identify_process
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules.staleness import constant
from fedagent.simulation import Equal, Lognormal
from fedagent.stopping import MaxVersions
from fedagent.strategies.flower_rule import FlowerRule
from fedagent.update import Update
from tests.toy import Log, run

COHORT = 8
OPTIONS = {"fraction_evaluate": 0.0}
WRAPPED = {
    "FedAvg": lambda: FedAvg(**OPTIONS),
    "FedAvgM": lambda: FedAvgM(server_momentum=0.5, **OPTIONS),
    "FedAdam": lambda: FedAdam(eta=0.1, **OPTIONS),
    "FedAdagrad": lambda: FedAdagrad(eta=0.1, **OPTIONS),
    "FedYogi": lambda: FedYogi(eta=0.1, **OPTIONS),
    "FedTrimmedAvg": lambda: FedTrimmedAvg(beta=0.2, **OPTIONS),
    "FedMedian": lambda: FedMedian(**OPTIONS),
    "FedProx": lambda: FedProx(proximal_mu=0.1, **OPTIONS),
    "Krum": lambda: Krum(num_malicious_nodes=1, **OPTIONS),
    "MultiKrum": lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=4, **OPTIONS),
    "Bulyan": lambda: Bulyan(num_malicious_nodes=1, **OPTIONS),
    "QFedAvg": lambda: QFedAvg(client_learning_rate=0.1, train_loss_key="loss", **OPTIONS),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_without_delay_a_wrapped_strategy_is_the_strategy(name):
    random.seed(0)
    plain = run(WRAPPED[name](), Equal(num_nodes=COHORT), rounds=4)
    wrapped = run(
        asynchronous(WRAPPED[name](), buffer_size=COHORT, staleness=constant),
        Equal(num_nodes=COHORT),
        rounds=4,
    )
    for key, array in plain.result.arrays.items():
        ours = wrapped.result.arrays[key].numpy()
        assert ours.dtype == np.float32
        assert np.abs(array.numpy() - ours).max() < 1e-5


@pytest.mark.parametrize("name", ["FedAdam", "FedTrimmedAvg"])
def test_wrapped_strategies_run_asynchronously_on_a_heterogeneous_fleet(name):
    log = Log()
    strategy = asynchronous(WRAPPED[name](), buffer_size=4, concurrency=6, callbacks=[log])
    run(strategy, Lognormal(num_nodes=12), rounds=15)
    assert log.reason == "15 rounds"
    assert log.statistics.staleness_max > 0


def test_differential_privacy_wrapper_works():
    private = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(**OPTIONS), noise_multiplier=0.0, clipping_norm=0.5, num_sampled_clients=4
    )
    strategy = asynchronous(private, buffer_size=4, **OPTIONS)
    outcome = run(strategy, Equal(num_nodes=4), rounds=1)
    step = np.concatenate([a.numpy().ravel() for a in outcome.result.arrays.values()])
    assert 0 < np.linalg.norm(step) <= 0.5 + 1e-6


def test_what_a_strategy_tells_its_clients_reaches_them():
    sent = []
    strategy = asynchronous(FedProx(proximal_mu=0.25, **OPTIONS), buffer_size=2)
    original = strategy.configure_train

    def spy(*arguments):
        messages = list(original(*arguments))
        sent.extend(dict(m.content["config"]) for m in messages)
        return messages

    strategy.configure_train = spy
    run(strategy, Equal(num_nodes=4), rounds=2)
    assert all(config["proximal-mu"] == 0.25 and config["lr"] == 0.05 for config in sent)


def test_keys_and_fractions_are_the_wrapped_strategys_unless_given():
    inner = FedAvg(fraction_train=0.5, weighted_by_key="n", arrayrecord_key="model")
    strategy = asynchronous(inner, fraction_train=0.25)
    assert strategy.options.fraction_train == 0.25
    assert strategy.options.weighted_by_key == "n"
    assert strategy.options.arrayrecord_key == "model"


def test_impossible_buffer_is_refused():
    with pytest.raises(ConfigurationError, match="buffer_size=0"):
        asynchronous(FedAvg(), buffer_size=0)


def test_settings_inside_a_differential_privacy_wrapper_are_found():
    inner = FedAvg(fraction_train=0.5, min_available_nodes=8, configrecord_key="settings")
    private = DifferentialPrivacyServerSideFixedClipping(
        inner, noise_multiplier=0.0, clipping_norm=0.5, num_sampled_clients=4
    )
    strategy = asynchronous(private, buffer_size=4, fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=8), rounds=2)
    assert strategy.options.fraction_train == 0.5
    assert strategy.options.configrecord_key == "settings"


def test_a_wrapped_strategy_configures_with_the_users_own_settings():
    seen = []

    class Decaying(FedAdam):
        def configure_train(self, server_round, arrays, config, grid):
            config["lr"] *= 0.5
            seen.append((server_round, config["lr"]))
            return super().configure_train(server_round, arrays, config, grid)

    run(asynchronous(Decaying(**OPTIONS), buffer_size=4), Equal(num_nodes=4), rounds=3)
    assert seen == [(1, 0.025), (2, 0.0125), (3, 0.00625)]


@pytest.mark.parametrize("buffer_size", [3, None])
@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "FedMedian"])
def test_a_wrapped_strategy_is_published_by_the_clock(name, buffer_size):
    log = Log()
    strategy = asynchronous(
        WRAPPED[name](),
        buffer_size=buffer_size,
        publish_every_s=2.5,
        stopping=[MaxVersions(6)],
        callbacks=[log],
        **OPTIONS,
    )
    outcome = run(strategy, Lognormal(num_nodes=6), rounds=1000)
    assert len(log.versions) == 6
    assert all(at_s % 2.5 == 0 for _, _, at_s in log.versions)
    assert all(np.abs(a.numpy()).max() > 0 for a in outcome.result.arrays.values())


def test_what_a_strategy_makes_nothing_of_waits_for_more():
    class Cautious(FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            sizes.append(len(replies))
            return super().aggregate_train(server_round, replies if len(replies) >= 4 else [])

    log, sizes = Log(), []
    strategy = asynchronous(
        Cautious(**OPTIONS),
        buffer_size=5,
        publish_every_s=1.5,
        stopping=[MaxVersions(2)],
        callbacks=[log],
        **OPTIONS,
    )
    run(strategy, Equal(num_nodes=2), rounds=1000)
    # Both nodes arrive every second: 2 replies at 1.5 s are too few, 4 at 3 s are enough, and so
    # are the 4 of 3 s (which belong to the next period) and 4 s.
    assert sizes == [2, 4, 4]
    assert [at_s for _, _, at_s in log.versions] == [3.0, 4.5]


def test_a_merge_between_two_replies_is_not_undone_by_the_strategy():
    """A reply is weighed when it comes and rebased when the buffer is aggregated."""
    arrays = {"x": np.zeros(1)}
    model = FlatModel(ModelSpec.of(arrays), arrays)
    rule = FlowerRule(FedAvg(**OPTIONS), 2, constant)
    identify_process(1, 1, 1)
    for _ in range(2):
        delta = torch.ones(1, dtype=torch.float64)
        rule.receive(model, Update(1, delta, torch.zeros(1), 0, metrics={"num-examples": 1}))
        model.vector.add_(10.0)
    assert float(model.vector) == 10.0 + 1.0 + 10.0
