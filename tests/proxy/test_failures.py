"""Whatever clients do: the model is safe, the run ends well, and every dispatch is counted."""

import itertools

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from fedagent import FedAsync, FedBuff
from fedagent.nodes.backoff import Backoff
from fedagent.simulation import Equal, Scripted
from fedagent.stopping import MaxSeconds
from fedagent.wire.records import digest
from tests.toy import Log, client_app, run

BAD = 1  # the partition that misbehaves


def _raise(reply):
    raise ValueError("broken sensor")


def _nan(reply):
    reply["arrays"] = ArrayRecord(
        {
            "weight": Array(np.full((1, 4), np.nan, np.float32)),
            "bias": Array(np.zeros(1, np.float32)),
        }
    )


def _shape(reply):
    reply["arrays"] = ArrayRecord(
        {"weight": Array(np.zeros((1, 1), np.float32)), "bias": Array(np.zeros(1, np.float32))}
    )


def _dtype(reply):
    reply["arrays"] = ArrayRecord(
        {k: Array(a.numpy().astype(np.int64)) for k, a in reply["arrays"].items()}
    )


def _keys(reply):
    reply["arrays"] = ArrayRecord({"w": Array(np.zeros(4, np.float32))})


def _examples(value):
    def change(reply):
        reply["metrics"] = MetricRecord({"num-examples": value})

    return change


def _token(reply):
    reply["config"] = ConfigRecord({"fedagent-token": "somebody else's"})


MISBEHAVIOUR = {
    "failed(client-app-raised)": _raise,
    "rejected(non-finite)": _nan,
    "rejected(shape)": _shape,
    "rejected(dtype)": _dtype,
    "rejected(keys)": _keys,
    "rejected(num-examples)": _examples(1e12),
    "rejected(wrong-token)": _token,
}


def _client(change):
    def misbehave(partition, reply):
        if partition == BAD:
            change(reply)
        return reply

    return client_app(misbehave)


@pytest.mark.parametrize("counted_as", MISBEHAVIOUR)
def test_a_bad_client_is_counted_and_the_run_ends_well(counted_as):
    log = Log()
    strategy = FedBuff(buffer_size=3, concurrency=4, callbacks=[log], fraction_evaluate=0.0)
    outcome = run(strategy, Equal(num_nodes=4), rounds=12, client=_client(MISBEHAVIOUR[counted_as]))
    counts = log.statistics.by_outcome()
    assert log.reason == "12 rounds"
    assert counts["applied"] == 12 * 4
    assert counts[counted_as] >= 2
    assert sum(counts.values()) == log.statistics.num_dispatches == len(log.settlements)
    assert np.isfinite(outcome.result.arrays["weight"].numpy()).all()


@pytest.mark.parametrize("counted_as", MISBEHAVIOUR)
def test_bad_replies_leave_the_model_bytes_alone(counted_as):
    everybody = client_app(lambda partition, reply: MISBEHAVIOUR[counted_as](reply) or reply)
    initial = {"weight": torch.randn(1, 4), "bias": torch.randn(1)}
    log = Log()
    strategy = FedAsync(callbacks=[log], stopping=[MaxSeconds(20.0)], fraction_evaluate=0.0)
    outcome = run(strategy, Equal(num_nodes=3), rounds=5, client=everybody, initial=initial)
    assert digest(outcome.result.arrays) == digest(ArrayRecord(initial))
    assert log.statistics.num_updates == 0
    assert log.statistics.by_outcome()[counted_as] > 0


def test_a_client_that_never_replies_expires_and_gets_nothing_while_it_may_be_busy():
    fleet = Scripted(num_nodes=3, times=(1.0, 1.0, 1.0), profiles={BAD: {"silence_rate": 1.0}})
    log = Log()
    strategy = FedBuff(buffer_size=2, concurrency=3, callbacks=[log], fraction_evaluate=0.0)
    run(strategy, fleet, rounds=100, timeout=10)
    counts = log.statistics.by_outcome()
    expired = [s.dispatch.sent_at_s for s in log.settlements if s.reason == "deadline"]
    assert log.reason == "100 rounds"
    assert counts["applied"] == 100 * 3
    assert len(expired) >= 2, "when the message's time to live is over it is tried again"
    assert all(later - earlier >= 20 for earlier, later in itertools.pairwise(expired))


def test_a_late_reply_frees_its_node_but_not_the_model():
    fleet = Scripted(num_nodes=2, times=(1.0, 7.0))
    log = Log()
    strategy = FedAsync(concurrency=2, callbacks=[log], fraction_evaluate=0.0)
    run(strategy, fleet, rounds=20, timeout=5)
    slow = [s for s in log.settlements if s.reason == "deadline"]
    assert log.statistics.unsolicited["late"] >= 1
    assert len(slow) >= 2, "the slow node works again after its late reply"
    assert log.statistics.outcomes[("applied", "")] == 20 * 2


def test_a_failing_node_backs_off_exponentially():
    log = Log()
    strategy = FedBuff(
        buffer_size=2,
        concurrency=3,
        callbacks=[log],
        fraction_evaluate=0.0,
        backoff=Backoff(base_s=1.0, cap_s=1000.0),
    )
    run(strategy, Equal(num_nodes=3), rounds=133, client=_client(_raise))
    times = [s.dispatch.sent_at_s for s in log.settlements if s.reason == "client-app-raised"]
    gaps = np.diff(times)
    assert len(times) < 12, "no tight loop on a failing node in 200 seconds"
    assert all(later >= 1.5 * earlier for earlier, later in itertools.pairwise(gaps))


def test_a_storm_of_failures_sends_one_probe_at_a_time_and_ends_with_the_reason():
    log = Log()
    strategy = FedBuff(
        concurrency=20,
        callbacks=[log],
        fraction_evaluate=0.0,
        backoff=Backoff(storm=20, cap_s=60.0),
    )
    run(
        strategy,
        Equal(num_nodes=40),
        rounds=5,
        timeout=600,
        client=client_app(lambda partition, reply: _raise(reply)),
    )
    assert log.reason.startswith("stalled")
    assert "broken sensor" in log.reason
    assert log.statistics.num_dispatches < 60


def test_a_fleet_that_dies_half_of_the_time_still_trains():
    fleet = Scripted(
        num_nodes=4, times=(1.0,) * 4, profiles={i: {"failure_rate": 0.5} for i in range(4)}
    )
    log = Log()
    strategy = FedBuff(buffer_size=2, concurrency=4, callbacks=[log], fraction_evaluate=0.0)
    run(strategy, fleet, rounds=20)
    assert log.reason == "20 rounds"
    assert log.statistics.outcomes[("failed", "client-app-crashed")] > 5


def test_clients_without_evaluate_do_not_slow_training():
    from flwr.clientapp import ClientApp

    trainer = client_app()
    deaf = ClientApp()
    deaf.train()(trainer)

    def virtual_time(client):
        strategy = FedBuff(buffer_size=4, concurrency=10, evaluate_clients_every=1)
        return run(strategy, Equal(num_nodes=30), rounds=20, client=client)

    able, unable = virtual_time(client_app()), virtual_time(deaf)
    assert (
        unable.result.train_metrics_clientapp.keys() == able.result.train_metrics_clientapp.keys()
    )
    assert unable.virtual_time_s <= able.virtual_time_s
    assert not unable.result.evaluate_metrics_clientapp


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"num-examples": 5, "loss": [0.0] * 20_000}, "metrics-too-large"),
        ({"num-examples": 5, "loss": 10**400}, "metrics-too-large"),
        ({"num-examples": 5, **{f"{n:040}": 0 for n in range(9_000)}}, "metrics-too-large"),
        ({"num-examples": 5, "x" * 300_000: 0}, "metrics-too-large"),
        ({"num-examples": [1.0] * 50}, "num-examples"),
        ({"num_examples": 50, "loss": 1.0}, "num-examples"),
        ({}, "num-examples"),
    ],
)
def test_absurd_metrics_are_refused(metrics, reason):
    log = Log()

    def absurd(partition, reply):
        if partition == BAD:
            reply["metrics"] = MetricRecord(metrics)
        return reply

    strategy = FedBuff(buffer_size=3, callbacks=[log], fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=4), rounds=5, client=client_app(absurd))
    assert log.reason == "5 rounds"
    assert log.statistics.outcomes[("rejected", reason)] >= 1


def test_a_counter_that_runs_away_is_left_out():
    initial = torch.nn.BatchNorm1d(2).state_dict()
    app = _batch_norm_app(initial, jump=2**62)
    log = Log()
    strategy = FedBuff(buffer_size=2, callbacks=[log], fraction_evaluate=0.0)
    outcome = run(strategy, Equal(num_nodes=3), rounds=2, client=app, initial=initial)
    assert outcome.result.arrays["num_batches_tracked"].numpy() <= 30
    assert {outcome for outcome, _ in log.statistics.outcomes} <= {"applied", "expired"}


def _batch_norm_app(initial, jump):
    from flwr.app import Message, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def _train(message, context):
        state = message.content["arrays"].to_torch_state_dict()
        state["num_batches_tracked"] += jump if context.node_config["partition-id"] == BAD else 5
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord(dict(state)), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def test_names_of_metrics_forge_no_line_where_the_weight_is_missing():
    log = Log()

    def forge(partition, reply):
        if partition == BAD:
            reply["metrics"] = MetricRecord({"a\x1b[2J\nWARNING: fine " + "x" * 9_000: 1.0})
        return reply

    strategy = FedBuff(buffer_size=3, callbacks=[log], fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=4), rounds=3, client=client_app(forge))
    details = [s.detail for s in log.settlements if s.reason == "num-examples"]
    assert details
    assert all(d.isprintable() and "is missing" in d and len(d) < 1_000 for d in details)
