"""A round is as many updates as a cohort has nodes, whatever the rule does with them."""

import logging

import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedagent import (
    AsyncStrategy,
    Collaborative,
    FedAsync,
    FedBuff,
    Hierarchical,
    asynchronous,
    rules,
)
from fedagent._flower import empty_run, identify_process
from fedagent.mixing import ring
from fedagent.nodes.geography import Blocks
from fedagent.simulation import Equal, Lognormal, SimulationGrid
from fedagent.simulation.workers.inline import Inline
from fedagent.stopping import MaxUpdates
from tests.toy import Log, client_app, model, run

NODES = 6
STRATEGIES = {
    "FedAsync": FedAsync,
    "FedBuff": FedBuff,
    "FedBuff of 1": lambda **options: FedBuff(buffer_size=1, **options),
    "FedBuff of 5": lambda **options: FedBuff(buffer_size=5, **options),
    "FedBuff by the clock": lambda **options: FedBuff(
        buffer_size=None, publish_every_s=1.5, **options
    ),
    "FedNova": lambda **options: AsyncStrategy(rules.FedNova("cohort"), **options),
    "Ringmaster": lambda **options: AsyncStrategy(rules.Ringmaster(), **options),
    "Hierarchical": lambda **options: Hierarchical(Blocks(2, NODES), send_every=2, **options),
    "Collaborative": lambda **options: Collaborative(ring(NODES), **options),
    "FedAdam": lambda **options: asynchronous(FedAdam(), **options),
}
COHORTS = {"fraction_train": (0.5, 3), "concurrency": (4, 4), "min_train_nodes": (2, 6)}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("setting", COHORTS)
def test_num_rounds_asks_for_a_cohorts_updates_each(name, setting):
    value, cohort = COHORTS[setting]
    strategy = STRATEGIES[name](**{setting: value}, fraction_evaluate=0.0)
    outcome = run(
        strategy,
        Lognormal(num_nodes=NODES),
        rounds=4,
        evaluate_fn=lambda server_round, arrays: MetricRecord({"round": server_round}),
    )
    result, statistics = outcome.result, strategy.proxy.statistics
    assert statistics.num_updates == 4 * cohort
    assert statistics.server_round == 4
    assert set(result.train_metrics_clientapp) - {0} == {1, 2, 3, 4}
    assert all("loss" in result.train_metrics_clientapp[n] for n in (1, 2, 3, 4))
    assert {n: m["round"] for n, m in result.evaluate_metrics_serverapp.items()} == {
        n: n for n in range(5)
    }
    assert result.end.detail == "4 rounds"


@pytest.mark.parametrize("name", STRATEGIES)
def test_hooks_and_clients_hear_of_rounds(name):
    heard = {"train": set(), "aggregate": set(), "config": set(), "evaluate": set(), "end": set()}

    def listen(kind, hook):
        def heard_by(server_round, *arguments):
            heard[kind].add(server_round)
            answer = hook(server_round, *arguments)
            if kind == "train":
                answer = list(answer)
                heard["config"].update(m.content["config"]["server-round"] for m in answer)
            return answer

        return heard_by

    strategy = STRATEGIES[name](concurrency=3)
    strategy.configure_train = listen("train", strategy.configure_train)
    strategy.aggregate_train = listen("aggregate", strategy.aggregate_train)
    strategy.configure_evaluate = listen("evaluate", strategy.configure_evaluate)
    strategy.aggregate_evaluate = listen("end", strategy.aggregate_evaluate)
    result = run(strategy, Lognormal(num_nodes=NODES), rounds=3).result
    assert heard == {kind: {1, 2, 3} for kind in heard}
    assert set(result.evaluate_metrics_clientapp) == {1, 2, 3}


@pytest.mark.parametrize("fraction_train", [1.0, 0.5])
@pytest.mark.parametrize("fleet", [Equal(num_nodes=NODES), Lognormal(num_nodes=NODES)])
@pytest.mark.parametrize("build", [FedAsync, FedBuff])
def test_clients_evaluate_every_round_as_many_as_the_fraction_says(build, fleet, fraction_train):
    log = Log()
    strategy = build(fraction_train=fraction_train, fraction_evaluate=0.5, callbacks=[log])
    result = run(strategy, fleet, rounds=5).result
    assert set(result.evaluate_metrics_clientapp) == {1, 2, 3, 4, 5}
    asked = [s for s in log.settlements if s.dispatch.kind == "evaluate"]
    assert len(asked) == 5 * 3


def test_a_buffer_without_a_size_is_fedavg_where_nobody_is_late():
    for options in ({}, {"fraction_train": 0.5}, {"min_train_nodes": 4, "fraction_train": 0.1}):
        theirs = run(FedAvg(**options, fraction_evaluate=0.0), Equal(num_nodes=8), rounds=1)
        for build in (FedBuff, lambda **o: asynchronous(FedAvg(), **o)):
            strategy = build(**options, fraction_evaluate=0.0)
            ours = run(strategy, Equal(num_nodes=8), rounds=1)
            assert strategy.proxy.statistics.version == 1
            assert strategy.proxy.statistics.now_s == theirs.virtual_time_s
            if not options:
                for name, array in theirs.result.arrays.items():
                    assert np.allclose(array.numpy(), ours.result.arrays[name].numpy(), atol=1e-6)


def test_the_last_round_leaves_nothing_in_a_buffer_that_is_larger():
    strategy = FedBuff(buffer_size=10, concurrency=2, fraction_evaluate=0.0)
    outcome = run(strategy, Equal(num_nodes=4), rounds=3)
    assert strategy.proxy.statistics.version == 1
    assert strategy.proxy.statistics.buffered == 0
    assert np.abs(outcome.result.arrays["weight"].numpy()).max() > 0


def test_a_round_that_another_condition_cuts_short_is_in_the_result():
    strategy = FedAsync(concurrency=4, stopping=[MaxUpdates(6)], fraction_evaluate=0.0)
    seen = []
    outcome = run(strategy, Equal(num_nodes=4), evaluate_fn=lambda n, arrays: seen.append(n))
    assert seen == [0, 1, 2]
    assert set(outcome.result.train_metrics_clientapp) == {1, 2}


def test_should_stop_is_asked_once_a_round():
    asked = []
    strategy = FedAsync(concurrency=3, fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=3), rounds=4, should_stop=lambda n, result: asked.append(n))
    assert asked == [1, 2, 3, 4]


def test_a_cohort_is_as_large_as_the_fleet_is_when_the_round_begins():
    sizes = []

    class Watched(rules.FedBuff):
        def begin_round(self, num_updates):
            sizes.append(num_updates)
            super().begin_round(num_updates)

    class Growing(SimulationGrid):
        """Two nodes; six from the fifth second on."""

        def get_node_ids(self):
            return list(super().get_node_ids())[: 2 if self.clock.now() < 5.0 else 6]

    strategy = AsyncStrategy(
        Watched("cohort"),
        fraction_evaluate=0.0,
        membership_interval_s=0.5,
        callbacks=[log := Log()],
    )
    grid = Growing(Equal(num_nodes=6), Inline(client_app()), empty_run(1), {})
    identify_process(1, 1, 1)
    strategy.start(grid, ArrayRecord(model().state_dict()), num_rounds=9)
    assert sizes[0] == 2
    assert sizes[-1] == 6
    assert set(sizes) == {2, 6}
    assert [n for _, n, _ in log.versions] == list(np.cumsum(sizes[:-1])), "a version a round"


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: FedBuff(concurrency=3), "every 3 updates"),
        (lambda: FedBuff(concurrency=3, buffer_size=7), "every 7 updates"),
        (lambda: FedAsync(concurrency=3), "as FedAsync says"),
        (lambda: FedBuff(concurrency=3, publish_every_s=2.0), "as Periodic says"),
    ],
)
def test_the_start_says_in_one_line_what_will_be_done(build, said, caplog):
    with caplog.at_level(logging.INFO, "flwr"):
        run(build(), Equal(num_nodes=6), rounds=2)
    (line,) = [r.getMessage() for r in caplog.records if "rounds of" in r.getMessage()]
    assert line == (
        "At most 2 rounds of 3 updates, 3 of 6 nodes at work at once, a new version " + said
    )


@pytest.mark.parametrize(
    "build", [lambda: FedAsync(0.2), lambda: FedBuff(1.0), lambda: asynchronous(FedAvg(), 5)]
)
def test_options_have_names(build):
    with pytest.raises(TypeError, match="positional"):
        build()
