"""Nodes that bring nothing to the model are named, and a run that nobody can serve ends."""

import logging
import math

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord

from fedagent import FedAsync, FedBuff
from fedagent.rules import Ringmaster
from fedagent.rules.staleness import threshold
from fedagent.scheduling import DyLU
from fedagent.simulation import Equal, Scripted
from fedagent.stopping import MaxSeconds, MaxUpdates
from fedagent.strategies import AsyncStrategy
from tests.toy import client_app, run

BAD = 1  # the partition that brings nothing
QUIET = {"fraction_evaluate": 0.0}


def _raise(reply):
    raise ValueError("broken sensor")


def _nan(reply):
    reply["arrays"] = ArrayRecord(
        {k: Array(np.full_like(a.numpy(), np.nan)) for k, a in reply["arrays"].items()}
    )


def _no_examples(reply):
    reply["metrics"] = MetricRecord({"num-examples": 0})


USELESS = {
    "failed(client-app-raised)": _raise,
    "rejected(non-finite)": _nan,
    "rejected(num-examples)": _no_examples,
}


def with_one(change):
    return client_app(lambda partition, reply: change(reply) if partition == BAD else None)


def named(caplog, begin):
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith(begin)]


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.INFO, "flwr")


@pytest.mark.parametrize("ends_as", USELESS)
def test_a_node_whose_every_job_comes_to_nothing_is_named(ends_as, caplog):
    strategy = FedBuff(buffer_size=2, **QUIET)
    run(strategy, Equal(num_nodes=4), rounds=30, client=with_one(USELESS[ends_as]))
    fruitless = strategy.proxy.statistics.fruitless_nodes()
    [(node_id, counts)] = fruitless.items()
    assert counts == {ends_as: counts[ends_as]}
    assert counts[ends_as] >= 3
    [early] = named(caplog, "Nothing that node")
    assert str(node_id) in early
    [late] = named(caplog, "Nodes that brought nothing")
    assert late.endswith(f"{node_id} ({counts[ends_as]} {ends_as})")


def test_a_node_that_is_of_use_once_is_not_named():
    times = iter(range(1000))

    def fail_at_first(reply):
        if next(times) < 5:
            raise ValueError("still booting")

    strategy = FedBuff(buffer_size=2, **QUIET)
    run(strategy, Equal(num_nodes=4), rounds=60, client=with_one(fail_at_first))
    assert next(times) > 6
    assert strategy.proxy.statistics.fruitless == {}


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        (lambda: FedAsync(staleness=threshold_of(3), **QUIET), "applied(weight 0)"),
        (lambda: AsyncStrategy(Ringmaster(max_staleness=3), **QUIET), "rejected(too-stale)"),
    ],
)
def test_a_node_that_is_always_too_late_to_count_is_named(strategy, why):
    strategy = strategy()
    times = [1.0] * 9 + [20.0]
    run(strategy, Scripted(num_nodes=10, times=times), rounds=100)
    [counts] = strategy.proxy.statistics.fruitless_nodes().values()
    assert counts == {why: counts[why]}


def threshold_of(limit):
    return lambda tau: threshold(tau, limit)


def test_a_node_that_returns_what_it_was_sent_is_named():
    def idle(partition, reply):
        reply["arrays"] = ArrayRecord(sent)

    sent = {"weight": torch.ones(1, 4), "bias": torch.zeros(1)}
    strategy = FedBuff(buffer_size=4, **QUIET)
    run(
        strategy,
        Equal(num_nodes=4),
        rounds=5,
        initial=sent,
        client=client_app(idle),
    )
    named = strategy.proxy.statistics.fruitless_nodes()
    assert list(named.values()) == [{"applied(no change)": 5}] * 4


def test_a_node_that_sends_its_change_and_not_its_model_is_named(caplog):
    initial = {"weight": torch.full((1, 4), 2.0), "bias": torch.zeros(1)}

    def change(partition, reply):
        if partition == BAD:
            trained = reply["arrays"].to_torch_state_dict()
            deltas = {k: 0.01 * (trained[k] - initial[k]) for k in trained}
            reply["arrays"] = ArrayRecord(deltas)

    strategy = FedBuff(buffer_size=4, **QUIET)
    run(strategy, Equal(num_nodes=4), rounds=5, initial=initial, client=client_app(change))
    [(node_id, share)] = strategy.proxy.statistics.delta_like.items()
    assert 0.0 < share < 0.1
    [early] = named(caplog, "What node")
    assert f"node {node_id} sent looks like the change of a model" in early
    [late] = named(caplog, "Nodes that seem to send changes")
    assert str(node_id) in late


def test_honest_nodes_are_not_named(caplog):
    strategy = FedBuff(buffer_size=4, **QUIET)
    ones = {"weight": torch.ones(1, 4), "bias": torch.ones(1)}
    run(strategy, Equal(num_nodes=4), rounds=5, initial=ones)
    statistics = strategy.proxy.statistics
    assert (statistics.fruitless, statistics.delta_like) == ({}, {})
    assert named(caplog, "Jobs: ") == ["Jobs: 20 applied"]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("num_nodes", [1, 2, 30])
def test_an_app_that_always_fails_ends_the_run_soon_and_with_the_reason(num_nodes, caplog):
    strategy = FedBuff(min_available_nodes=1, **QUIET)
    outcome = run(
        strategy, Equal(num_nodes=num_nodes), client=client_app(lambda _, reply: _raise(reply))
    )
    end = outcome.result.end
    assert end.kind == "stalled"
    assert "failures or refused" in end.detail
    assert "broken sensor" in end.detail
    assert outcome.virtual_time_s < 120.0
    [(label, failed)] = strategy.proxy.statistics.by_outcome().items()
    assert label == "failed(client-app-raised)"
    assert failed >= min(5 * num_nodes, 25)


def test_failures_end_nothing_while_a_slow_node_is_at_work():
    times = [1.0, 1.0, 1000.0]

    def change(partition, reply):
        if partition < 2:
            _raise(reply)

    strategy = FedAsync(**QUIET)
    outcome = run(strategy, Scripted(num_nodes=3, times=times), rounds=1, client=client_app(change))
    assert strategy.proxy.statistics.num_updates >= 1
    assert outcome.result.end.kind != "stalled"


def test_failures_after_a_success_leave_the_end_to_the_timeout():
    times = iter(range(1000))

    def change(partition, reply):
        if next(times) >= 4:
            _raise(reply)

    fleet, client = Equal(num_nodes=2), client_app(change)
    outcome = run(FedAsync(**QUIET), fleet, rounds=100, client=client, timeout=2000)
    assert "delivered anything for" in outcome.result.end.detail
    assert outcome.virtual_time_s > 2000
    assert math.isfinite(outcome.virtual_time_s)


@pytest.mark.parametrize(("deadline_s", "warnings"), [(4.0, 1), (6.0, 0)])
def test_a_run_whose_jobs_all_miss_their_deadlines_says_so(deadline_s, warnings, caplog):
    """The first jobs have one step, and all others five: late replies keep the run going."""
    strategy = FedBuff(
        buffer_size=1,
        scheduler=DyLU(max_steps=5),
        deadline_s=deadline_s,
        stopping=[MaxUpdates(40), MaxSeconds(1000.0)],
        **QUIET,
    )
    run(strategy, Equal(num_nodes=2), rounds=1000)
    assert strategy.proxy.statistics.num_updates == (2 if warnings else 40)
    said = named(caplog, "10 jobs have missed their deadlines and none has succeeded")
    assert len(said) == warnings
