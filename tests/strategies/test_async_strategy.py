import random

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg

from fedagent import AsyncStrategy, FedAsync, FedBuff
from fedagent.errors import ConfigurationError
from fedagent.rules import Rule
from fedagent.rules.staleness import constant
from fedagent.simulation import Equal, Lognormal, Reliability, Scripted
from fedagent.stopping import MaxSeconds, MaxUpdates, MaxVersions, Metric, Plateau, Target
from fedagent.wire.records import digest
from tests.toy import TRUE_WEIGHTS, Log, client_app, run

STRATEGIES = {
    "fedasync": FedAsync,
    "fedbuff": lambda **o: FedBuff(buffer_size=3, **o),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_learns_the_weights_on_a_heterogeneous_fleet(name):
    strategy = STRATEGIES[name](concurrency=5, fraction_evaluate=0.0)
    outcome = run(strategy, Lognormal(num_nodes=10), rounds=60)
    weights = outcome.result.arrays["weight"].numpy()[0]
    assert np.abs(weights - TRUE_WEIGHTS.numpy()).max() < 0.2


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_for_any_number_of_workers(name, workers):
    def digest_with(number):
        strategy = STRATEGIES[name](concurrency=5, fraction_evaluate=0.0)
        return digest(run(strategy, Lognormal(num_nodes=10), workers=number).result.arrays)

    assert digest_with(workers) == digest_with(0)


def test_another_seed_gives_other_bytes():
    digests = {
        digest(run(FedBuff(concurrency=4), Lognormal(num_nodes=8), seed=s).result.arrays)
        for s in (1, 2)
    }
    assert len(digests) == 2


def test_zero_delay_limit_is_flowers_fedavg():
    """Equal speeds, buffer = cohort, constant weight: the same model after every round."""
    for rounds in (1, 5):
        synchronous = run(FedAvg(fraction_evaluate=0.0), Equal(num_nodes=8), rounds=rounds)
        ours = run(
            FedBuff(buffer_size=8, staleness=constant, fraction_evaluate=0.0),
            Equal(num_nodes=8),
            rounds=rounds,
        )
        for name, array in synchronous.result.arrays.items():
            difference = np.abs(array.numpy() - ours.result.arrays[name].numpy()).max()
            assert difference < 1e-6


def test_straggler_does_not_hold_up_the_others():
    fleet = Scripted(num_nodes=4, times=(1.0, 1.0, 1.0, 100.0))
    log = Log()
    outcome = run(
        FedBuff(
            buffer_size=3,
            concurrency=4,
            stopping=[MaxVersions(10)],
            callbacks=[log],
            fraction_evaluate=0.0,
        ),
        fleet,
        rounds=10_000,
    )
    assert outcome.virtual_time_s == 10.0
    random.seed(0)
    assert run(FedAvg(fraction_evaluate=0.0), fleet, rounds=10).virtual_time_s == 1000.0


def test_staleness_counts_versions_published_since_the_dispatch():
    """One slow node works from version 0 while the fast one publishes a version a second."""
    staleness = []

    class Spy(Rule):
        def receive(self, model, update):
            staleness.append((update.node_id, update.staleness))
            return True

    run(
        AsyncStrategy(Spy(), concurrency=2, fraction_evaluate=0.0, stopping=[MaxVersions(5)]),
        Scripted(num_nodes=2, times=(1.0, 3.5)),
    )
    slow = max(node for node, _ in staleness)
    assert [tau for node, tau in staleness if node == slow] == [3]
    assert [tau for node, tau in staleness if node != slow] == [0, 0, 0, 1]


def test_one_poll_with_more_replies_than_the_buffer_publishes_at_every_kth():
    log = Log()
    run(
        FedBuff(buffer_size=3, stopping=[MaxVersions(3)], callbacks=[log], fraction_evaluate=0.0),
        Equal(num_nodes=10),
    )
    assert log.versions == [(1, 3, 1.0), (2, 6, 1.0), (3, 9, 1.0)]


def test_never_more_nodes_at_work_than_concurrency():
    log = Log()
    strategy = FedAsync(concurrency=3, callbacks=[log], fraction_evaluate=0.0)
    run(strategy, Lognormal(num_nodes=12), rounds=40)
    ends = [(s.dispatch.sent_at_s, 1) for s in log.settlements]
    assert log.statistics.concurrency == 3
    assert log.statistics.num_dispatches <= 40 * 3 + 3
    assert len({node for node, _ in log.starts}) > 6
    assert len(ends) == log.statistics.num_dispatches


def test_fraction_train_means_the_same_share_as_in_fedavg():
    log = Log()
    run(FedAsync(fraction_train=0.25, callbacks=[log], fraction_evaluate=0.0), Equal(num_nodes=12))
    assert log.statistics.concurrency == 3


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (MaxUpdates(17), "17 updates"),
        (MaxSeconds(6.0), "6 seconds"),
        (Target(0.5, Metric("accuracy")), "target"),
        (Plateau(4, metric=Metric("constant")), "not improved in 4"),
    ],
)
def test_first_stopping_condition_ends_the_run(condition, reason):
    log = Log()

    def evaluate(version, arrays):
        return MetricRecord({"accuracy": version / 20, "constant": 1.0})

    strategy = FedAsync(concurrency=2, stopping=[condition], callbacks=[log], fraction_evaluate=0.0)
    run(strategy, Scripted(num_nodes=3, times=(1.0, 2.0, 3.0)), rounds=10_000, evaluate_fn=evaluate)
    assert reason in log.reason


def test_time_limit_ends_exactly_there_even_if_the_next_reply_is_far():
    log = Log()
    strategy = FedAsync(stopping=[MaxSeconds(30.0)], callbacks=[log], fraction_evaluate=0.0)
    outcome = run(strategy, Equal(num_nodes=2, seconds_per_step=1e6), rounds=10)
    assert outcome.virtual_time_s == 30.0
    assert log.statistics.by_outcome() == {"expired(run-ended)": 2}


def test_evaluate_fn_runs_before_on_every_nth_and_on_the_last_round():
    seen = []
    strategy = FedAsync(concurrency=2, evaluate_every=4, fraction_evaluate=0.0)
    outcome = run(
        strategy,
        Equal(num_nodes=4),
        rounds=10,
        evaluate_fn=lambda v, a: seen.append(v) or MetricRecord({"v": v}),
    )
    assert seen == [0, 4, 8, 10]
    assert list(outcome.result.evaluate_metrics_serverapp) == seen


def test_evaluate_fn_sees_the_arrays_of_its_version():
    seen = {}
    strategy = FedAsync(concurrency=2, fraction_evaluate=0.0)
    outcome = run(
        strategy, Equal(num_nodes=4), rounds=3, evaluate_fn=lambda v, a: seen.update({v: digest(a)})
    )
    assert len(set(seen.values())) == 4
    assert seen[3] == digest(outcome.result.arrays)


def test_federated_evaluation_uses_idle_nodes_and_aggregates_as_flower_does():
    log = Log()
    strategy = FedBuff(concurrency=2, evaluate_clients_every=3, callbacks=[log])
    outcome = run(strategy, Equal(num_nodes=8), rounds=7)
    assert sorted(outcome.result.evaluate_metrics_clientapp) == [3, 6, 7]
    errors = [m["error"] for _, m in sorted(outcome.result.evaluate_metrics_clientapp.items())]
    assert errors[0] > errors[-1]
    evaluating = {s.dispatch.node_id for s in log.settlements if s.dispatch.kind == "evaluate"}
    assert evaluating


def test_federated_evaluation_does_not_slow_training_where_enough_nodes_are_idle():
    def versions(fraction_evaluate):
        log = Log()
        strategy = FedBuff(
            buffer_size=2,
            concurrency=3,
            evaluate_clients_every=1,
            callbacks=[log],
            fraction_evaluate=fraction_evaluate,
        )
        run(strategy, Equal(num_nodes=9), rounds=8)
        return log.versions

    assert versions(0.3) == versions(0.0)


@pytest.mark.parametrize("buffer_size", [1, 2, 4, 8])
def test_training_metrics_are_aggregated_once_a_round_by_the_users_function(buffer_size):
    called = []

    def total(records, weighted_by_key):
        metrics = [next(iter(r.metric_records.values())) for r in records]
        called.append(sum(m[weighted_by_key] for m in metrics))
        return MetricRecord({"examples": called[-1]})

    settings = {"buffer_size": buffer_size, "fraction_evaluate": 0.0}
    strategy = FedBuff(train_metrics_aggr_fn=total, **settings)
    outcome = run(strategy, Equal(num_nodes=4), rounds=2)
    assert outcome.result.train_metrics_clientapp[2]["examples"] == 10 + 11 + 12 + 13
    assert called == [10 + 11 + 12 + 13] * 2


@pytest.mark.parametrize(
    ("buffer_size", "versions"), [(1, [4, 8]), (2, [2, 4]), (4, [1, 2]), (8, [None, 1])]
)
def test_aggregate_train_returns_what_a_round_has_made_once_a_round(buffer_size, versions):
    returned = []

    class Mine(FedBuff):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            if metrics is not None:
                newest = arrays is self.proxy.result.arrays
                returned.append((server_round, self.proxy.statistics.version if newest else None))
                assert "loss" in metrics
            return arrays, metrics

    strategy = Mine(buffer_size=buffer_size, fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=4), rounds=2)
    assert returned == list(enumerate(versions, start=1))


def test_a_metric_that_one_client_leaves_out_is_left_out_of_the_round():
    def forget(partition, reply):
        if partition == 1:
            del reply["metrics"]["loss"]
        return reply

    strategy = FedBuff(buffer_size=4, fraction_evaluate=0.0)
    outcome = run(strategy, Equal(num_nodes=4), rounds=2, client=client_app(forget))
    assert dict(outcome.result.train_metrics_clientapp[1]) == {}


def test_overrides_of_flowers_hooks_are_heard():
    sent, saved = [], []

    class Mine(FedBuff):
        def configure_train(self, server_round, arrays, config, grid):
            config["lr"] = 1.0 / server_round
            messages = list(super().configure_train(server_round, arrays, config, grid))
            sent.extend(m.content["config"]["lr"] for m in messages)
            return messages

        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            if arrays is not None:
                saved.append(server_round)
            return arrays, metrics

    run(Mine(buffer_size=4, fraction_evaluate=0.0), Equal(num_nodes=4), rounds=3)
    assert saved == [1, 2, 3]
    assert sorted(set(sent)) == pytest.approx([1 / 3, 0.5, 1.0])


def test_a_reply_that_an_override_swallows_still_gets_an_outcome():
    log = Log()

    class Deaf(FedBuff):
        def aggregate_train(self, server_round, replies):
            return None, None

    strategy = Deaf(
        concurrency=2, callbacks=[log], stopping=[MaxSeconds(3.0)], fraction_evaluate=0.0
    )
    run(strategy, Equal(num_nodes=2), rounds=3)
    assert log.statistics.by_outcome()["rejected(dropped-by-strategy)"] >= 2


def test_hooks_outside_start_say_what_to_do():
    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        FedBuff().aggregate_train(1, [None])


def test_batch_norm_buffers_are_averaged_and_its_counter_carried():
    initial = torch.nn.BatchNorm1d(3).state_dict()

    def batch_norm(partition, reply):
        state = {k: v.clone() for k, v in initial.items()}
        state["running_mean"] += partition
        state["num_batches_tracked"] += 5 + partition
        reply["arrays"] = ArrayRecord(state)
        return reply

    from flwr.app import Message, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def _train(message, context):
        metrics = MetricRecord({"num-examples": 1})
        reply = RecordDict({"arrays": ArrayRecord(), "metrics": metrics})
        return Message(
            batch_norm(int(context.node_config["partition-id"]), reply), reply_to=message
        )

    outcome = run(
        FedBuff(buffer_size=3, fraction_evaluate=0.0),
        Equal(num_nodes=3),
        rounds=1,
        client=app,
        initial=initial,
    )
    arrays = {k: a.numpy() for k, a in outcome.result.arrays.items()}
    assert arrays["running_mean"].tolist() == [1.0, 1.0, 1.0]
    assert arrays["num_batches_tracked"] == 7
    assert arrays["num_batches_tracked"].dtype == np.int64


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "concurrency=0"),
        ({"fraction_train": 1.5}, "fraction_train=1.5"),
        ({"fraction_train": 0.0, "min_train_nodes": 0}, "nobody would ever train"),
        ({"evaluate_every": 0}, "evaluate_every=0"),
        ({"membership_interval_s": 0.0}, "membership_interval_s"),
    ],
)
def test_options_that_cannot_work_are_refused_at_birth(options, says):
    with pytest.raises(ConfigurationError, match=says):
        FedBuff(**options)


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(TypeError, match="bufer_size"):
        FedBuff(bufer_size=3)


def test_a_run_without_nodes_ends_with_the_reason():
    log = Log()
    strategy = FedBuff(min_available_nodes=5, callbacks=[log])
    outcome = run(strategy, Equal(num_nodes=3), rounds=2, timeout=60)
    assert "only 3 of min_available_nodes=5" in log.reason
    assert outcome.virtual_time_s > 60


def test_a_fleet_that_comes_and_goes_still_trains():
    log = Log()
    fleet = Equal(num_nodes=10, reliability=Reliability(period_s=20.0, online_fraction=0.5))
    strategy = FedBuff(buffer_size=3, concurrency=3, callbacks=[log], fraction_evaluate=0.0)
    run(strategy, fleet, rounds=20)
    assert log.reason == "20 rounds"
    assert log.statistics.outcomes[("applied", "")] == 60
    assert log.statistics.outcomes[("failed", "node-unavailable")] > 0


def test_time_limit_and_federated_evaluation_end_together():
    log = Log()
    strategy = FedBuff(buffer_size=2, concurrency=3, stopping=[MaxSeconds(5.0)], callbacks=[log])
    outcome = run(strategy, Equal(num_nodes=10), rounds=1000)
    assert log.reason == "5 seconds"
    assert log.statistics.now_s == 5.0
    evaluated = [e for e in log.statistics.evaluations if e.source == "clients"]
    assert evaluated[-1].version == log.statistics.version
    assert max(outcome.result.evaluate_metrics_clientapp) == log.statistics.server_round


def test_a_run_may_begin_at_any_time_of_the_clock():
    """(start + due) - start rounds to just below due: the loop must not wait for ever."""
    from flwr.app import ArrayRecord, ConfigRecord
    from flwr.serverapp import ServerApp

    from fedagent import run_simulation
    from tests.toy import model

    server, times = ServerApp(), []

    @server.main()
    def _main(grid, context):
        for seconds in (4.0, 1.85, 0.1, 0.7):
            start = grid.clock.now()
            FedBuff(stopping=[MaxSeconds(seconds)], fraction_evaluate=0.0).start(
                grid, ArrayRecord(model().state_dict()), 1000, train_config=ConfigRecord()
            )
            times.append(grid.clock.now() - start)

    run_simulation(server, client_app(), fleet=Equal(num_nodes=4, seconds_per_step=0.3))
    assert times == pytest.approx([4.0, 1.85, 0.1, 0.7])


def test_a_decaying_learning_rate_decays_once_per_round():
    rates = {}

    class Decaying(FedBuff):
        def configure_train(self, server_round, arrays, config, grid):
            config["lr"] *= 0.5
            rates.setdefault(server_round, set()).add(config["lr"])
            return super().configure_train(server_round, arrays, config, grid)

    run(
        Decaying(buffer_size=2, concurrency=2, fraction_evaluate=0.0),
        Lognormal(num_nodes=4),
        rounds=4,
    )
    first = 0.05 / 2
    assert rates == {v: {first / 2 ** (v - 1)} for v in rates}
    assert len(rates) >= 3


def test_a_message_that_an_override_drops_gives_its_node_back():
    class Choosy(FedBuff):
        calls = 0

        def configure_train(self, server_round, arrays, config, grid):
            for message in super().configure_train(server_round, arrays, config, grid):
                Choosy.calls += 1
                if Choosy.calls % 3:
                    yield message

    log = Log()
    strategy = Choosy(buffer_size=2, concurrency=3, callbacks=[log], fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=4), rounds=40)
    assert log.reason == "40 rounds"


def test_what_evaluate_fn_does_to_its_arrays_stays_there():
    log = Log()
    strategy = FedBuff(buffer_size=2, callbacks=[log], fraction_evaluate=0.0)
    outcome = run(
        strategy,
        Equal(num_nodes=2),
        rounds=3,
        evaluate_fn=lambda v, a: a.to_torch_state_dict(keep_input=False) and None,
    )
    assert log.statistics.by_outcome() == {"applied": 6}
    assert set(outcome.result.arrays) == {"weight", "bias"}


def test_a_second_start_does_not_use_what_the_first_left_buffered():
    strategy = FedBuff(buffer_size=4, stopping=[MaxUpdates(6)], fraction_evaluate=0.0)
    log = Log()
    fresh = FedBuff(buffer_size=4, stopping=[MaxUpdates(6)], callbacks=[log], fraction_evaluate=0.0)
    first, second = (run(strategy, Equal(num_nodes=4), rounds=9) for _ in range(2))
    third = run(fresh, Equal(num_nodes=4), rounds=9)
    assert (
        digest(first.result.arrays) == digest(second.result.arrays) == digest(third.result.arrays)
    )
    assert log.statistics.buffered == 2


def test_an_interrupted_run_hands_over_what_it_has():
    log = Log()

    def evaluate(version, arrays):
        if version == 3:
            raise KeyboardInterrupt

    strategy = FedAsync(concurrency=2, callbacks=[log], fraction_evaluate=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(strategy, Equal(num_nodes=4), rounds=10, evaluate_fn=evaluate)
    assert "KeyboardInterrupt" in log.reason
    assert log.statistics.server_round == 3


def test_the_last_version_is_evaluated_by_busy_clients_too():
    log = Log()
    strategy = FedBuff(buffer_size=5, evaluate_clients_every=1000, callbacks=[log])
    run(strategy, Lognormal(num_nodes=12), rounds=6)
    evaluated = [s for s in log.settlements if s.dispatch.kind == "evaluate"]
    assert len(evaluated) == 12
