"""What a run does against nodes that lie, from end to end."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
)

from fedagent import AsyncStrategy, FedAsync, FedBuff, Robust, asynchronous
from fedagent.admission.filters import Filter, NormBound
from fedagent.client.attacks import Attackers, SignFlip
from fedagent.errors import ConfigurationError
from fedagent.nodes.courses import Course
from fedagent.nodes.membership import Membership
from fedagent.privacy import Private
from fedagent.rules import CA2FL, CentredClipping, GeometricMedian, Median
from fedagent.rules import FedBuff as FedBuffRule
from fedagent.simulation import Scripted
from fedagent.statistics import Statistics
from fedagent.stopping import MaxSeconds, MaxUpdates
from fedagent.wire.records import digest
from tests import toy
from tests.rules.test_one_per_node import model, update

LIAR = SignFlip(Attackers(num_nodes=5, nodes=[0]), scale=10.0)
FAST = [0.05, 1.0, 1.0, 1.0, 1.0]


def train(strategy, times=(1.0,) * 5, rounds=15):
    fleet = Scripted(num_nodes=len(times), times=list(times))
    return toy.run(strategy, fleet, rounds=rounds, client=toy.client_app(mods=[LIAR]))


def private(robust):
    return AsyncStrategy(Private(FedBuffRule(1), buffer_size=4), robust=robust)


def error(run) -> float:
    weights = run.result.arrays["weight"].numpy()[0]
    return float(np.linalg.norm(weights - toy.TRUE_WEIGHTS.numpy()))


@pytest.mark.parametrize(
    ("times", "robust"),
    [
        ((1.0,) * 5, Robust(Median())),
        (FAST, Robust(GeometricMedian(), per_node="mean")),
        (FAST, Robust(CentredClipping(), filters=[NormBound()])),
    ],
    ids=["median", "geometric", "clipping"],
)
def test_a_liar_that_ruins_a_plain_mean_does_not_matter(times, robust):
    options = {"buffer_size": 4, "fraction_evaluate": 0.0}
    plain = train(FedBuff(**options), times, rounds=4)
    safe = train(FedBuff(**options, robust=robust), times, rounds=60 if times == FAST else 15)
    assert error(safe) < 0.7
    assert error(plain) > 2.0


def test_a_node_that_answers_twenty_times_as_often_stays_under_its_cap():
    shares, jobs = [], []
    for cap in (None, 0.3):
        strategy = FedBuff(
            buffer_size=2,
            fraction_evaluate=0.0,
            weighted=False,
            robust=Robust(max_influence=cap),
            stopping=[MaxUpdates(60)],
        )
        train(strategy, FAST, rounds=1000)
        statistics = strategy.proxy.statistics
        shares.append(statistics.influence(1001))
        jobs.append(statistics.num_dispatches)
        assert sum(statistics.weights.values()) == pytest.approx(statistics.applied_weight)
    assert shares[0] > 0.7
    assert shares[1] <= 0.3
    assert not statistics.outcomes["rejected", "over-its-share"]  # it rests instead
    assert jobs[1] <= jobs[0]
    assert next(iter(statistics.most_influential().items())) == (1001, shares[1])


class OneExample(Filter):
    """Takes nobody for more than one example."""

    def judge(self, update, model):
        return replace(update, num_examples=1.0)


def test_a_nodes_share_is_of_the_weight_that_filters_leave():
    strategy = FedBuff(
        buffer_size=2,
        fraction_evaluate=0.0,
        staleness=lambda tau: 1.0,
        robust=Robust(filters=[OneExample()], max_influence=0.35),
        stopping=[MaxUpdates(60)],
    )
    train(strategy, (0.7, 1.0, 1.0, 1.0, 1.0), rounds=1000)  # one has a quarter, and claims 10
    statistics = strategy.proxy.statistics
    assert statistics.applied_weight == 60
    assert not statistics.outcomes["rejected", "over-its-share"]


def test_a_node_at_its_cap_gets_nothing_to_queue_either():
    strategy = FedBuff(
        buffer_size=2,
        fraction_evaluate=0.0,
        prefetch=3,
        robust=Robust(max_influence=0.3),
        stopping=[MaxUpdates(60)],
    )
    train(strategy, FAST, rounds=1000)
    statistics = strategy.proxy.statistics
    assert statistics.influence(1001) <= 0.3
    assert statistics.outcomes["rejected", "over-its-share"] < 12  # its first queues


def test_who_is_heard_is_counted_once_when_work_is_handed_out(monkeypatch):
    counted, most, failing = [], [], Membership.failing
    monkeypatch.setattr(Membership, "failing", lambda self: counted.append(1) or failing(self))

    class Watched(AsyncStrategy):
        def configure_train(self, *arguments):
            before = len(counted)
            messages = list(super().configure_train(*arguments))
            most.append(len(counted) - before)
            return messages

    robust = Robust(max_influence=0.01)  # which everybody is over
    rule = FedBuffRule(2, weighted=False)
    strategy = Watched(rule, robust=robust, concurrency=3, prefetch=1, fraction_evaluate=0.0)
    train(strategy, tuple(range(1, 21)), rounds=30)
    assert max(most) == 1


class Barring(FedBuffRule):
    """Lets one node work no more once it has brought two updates."""

    num_brought = 0

    @property
    def barred(self):
        return {1005} if self.num_brought >= 2 else frozenset()

    def receive(self, model, update):
        self.num_brought += update.node_id == 1005
        return super().receive(model, update)


def breaks_after_two_jobs():
    begun = Counter()

    def breaking(message, context, call_next):
        partition = context.node_config["partition-id"]
        begun[partition] += 1
        if partition == 4 and begun[partition] > 2:
            raise RuntimeError("broken")
        return call_next(message, context)

    return breaking


@pytest.mark.parametrize("how", ["fails", "hangs", "is barred"])
def test_a_cap_does_not_wait_for_a_node_that_stopped_working(how):
    """Four of five nodes that are left have a quarter each, which is more than the cap."""
    hangs = {4: {"uploads": Course((0.0, 2.5), (math.inf, 1e-3))}}
    kind = Barring if how == "is barred" else FedBuffRule
    strategy = AsyncStrategy(
        kind(buffer_size=2, weighted=False, staleness=lambda tau: 1.0),
        fraction_evaluate=0.0,
        deadline_s=5.0,
        robust=Robust(max_influence=0.22),
        stopping=[MaxUpdates(60), MaxSeconds(1000.0)],
    )
    fleet = Scripted(num_nodes=5, times=(1.0,) * 5, profiles=hangs if how == "hangs" else {})
    mods = [breaks_after_two_jobs()] if how == "fails" else []
    toy.run(strategy, fleet, rounds=1000, client=toy.client_app(mods=mods))
    statistics = strategy.proxy.statistics
    assert (statistics.num_updates, statistics.weights[1005]) == (60, 2.0)
    assert statistics.now_s < 30.0
    assert not statistics.outcomes["rejected", "over-its-share"]


def test_nodes_that_brought_nothing_and_left_do_not_lift_a_cap():
    def broken(message, context, call_next):
        if context.node_config["partition-id"] >= 3:
            raise RuntimeError("broken")
        return call_next(message, context)

    until_20_s = {"presence": Course((0.0, 20.0), (1.0, 0.0), period_s=1e7)}
    strategy = FedBuff(
        buffer_size=2,
        fraction_evaluate=0.0,
        weighted=False,
        staleness=lambda tau: 1.0,
        robust=Robust(max_influence=0.4),
        stopping=[MaxUpdates(150)],
    )
    times, profiles = (0.05,) + (1.0,) * 6, dict.fromkeys(range(3, 7), until_20_s)
    fleet = Scripted(num_nodes=7, times=times, profiles=profiles)
    toy.run(strategy, fleet, rounds=1000, client=toy.client_app(mods=[broken]))
    statistics = strategy.proxy.statistics
    assert len(statistics.fruitless_nodes()) == 4
    assert statistics.num_nodes == 3
    assert statistics.influence(1001) <= 0.4


def test_a_cap_waits_for_nobody_who_never_brings_anything():
    def broken(message, context, call_next):
        if context.node_config["partition-id"] >= 2:
            raise RuntimeError("broken")
        return call_next(message, context)

    stopping = [MaxUpdates(20), MaxSeconds(300.0)]
    strategy = FedBuff(
        buffer_size=2, weighted=False, robust=Robust(max_influence=0.3), stopping=stopping
    )
    fleet, client = Scripted(num_nodes=5, times=(1.0,) * 5), toy.client_app(mods=[broken])
    toy.run(strategy, fleet, rounds=1000, client=client)
    assert strategy.proxy.statistics.num_updates == 20


def test_a_flower_strategy_weighs_by_what_filters_leave_of_a_claim():
    def trained(build):
        robust = Robust(filters=[OneExample()])
        strategy = build(buffer_size=5, staleness=lambda tau: 1.0, robust=robust)
        result = train(strategy, rounds=1).result
        return result.arrays["weight"].numpy()

    average = FedAvg(fraction_evaluate=0.0)
    wrapped = trained(lambda **o: asynchronous(average, **o))
    plain = trained(lambda **o: FedBuff(fraction_evaluate=0.0, **o))
    np.testing.assert_allclose(wrapped, plain, rtol=1e-5)


def test_somebody_is_always_heard_however_small_the_cap():
    strategy = FedBuff(
        buffer_size=2, fraction_evaluate=0.0, robust=Robust(max_influence=0.01), cohort=5
    )
    train(strategy, (1.0, 1.5, 2.0, 2.5, 3.0), rounds=5)
    assert strategy.proxy.statistics.num_updates == 25


def test_what_was_replaced_in_a_buffer_has_no_influence():
    strategy = FedBuff(
        buffer_size=4,
        fraction_evaluate=0.0,
        weighted=False,
        robust=Robust(per_node="newest"),
        stopping=[MaxUpdates(120)],
    )
    train(strategy, FAST, rounds=1000)
    statistics = strategy.proxy.statistics
    lost = statistics.lost["superseded"]
    assert lost > 60
    assert statistics.influence(1001) < 0.35


def test_a_strategy_that_is_started_again_begins_anew():
    strategy = FedBuff(
        buffer_size=4,
        fraction_evaluate=0.0,
        robust=Robust(CentredClipping(), filters=[NormBound()]),
    )
    first, second = (train(strategy, rounds=6) for _ in range(2))
    assert digest(first.result.arrays) == digest(second.result.arrays)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: FedAsync(robust=Robust(Median())), "FedAsync does not go by a buffer"),
        (lambda: AsyncStrategy(CA2FL(), robust=Robust(Median())), "CA2FL does not go by a buffer"),
        (lambda: FedAsync(robust=Robust(per_node="newest")), "FedAsync has no buffer"),
        (lambda: asynchronous(FedAvg(), robust=Robust(Median())), "FlowerRule does not go by"),
        (lambda: private(Robust(Median())), "Private does not go by a buffer"),
        (lambda: private(Robust(filters=[NormBound()])), "Private promises"),
        (lambda: Robust(max_influence=0.0), "max_influence=0"),
        (lambda: Robust(per_node="oldest"), "per_node"),
        (
            lambda: asynchronous(FedAvg(), rebase=False, robust=Robust(filters=[NormBound()])),
            "no filter can look",
        ),
    ],
)
def test_what_cannot_go_together_is_refused_with_the_reason(build, says):
    with pytest.raises(ConfigurationError, match=says):
        build()


FLOWERS = {
    "krum": lambda: Krum(num_malicious_nodes=1),
    "median": FedMedian,
    "trimmed": lambda: FedTrimmedAvg(beta=0.3),
    "private": lambda: DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.1, 5.0, 4),
}


@pytest.mark.parametrize("build", FLOWERS.values(), ids=FLOWERS)
def test_flowers_robust_and_private_strategies_get_one_update_of_a_node(build):
    strategy = asynchronous(
        build(), buffer_size=4, fraction_evaluate=0.0, stopping=[MaxUpdates(90)]
    )
    inner = strategy.rule.strategy
    seen, aggregate = [], inner.aggregate_train

    def aggregate_train(server_round, replies):
        replies = list(replies)
        seen.append([r.metadata.src_node_id for r in replies])
        return aggregate(server_round, replies)

    inner.aggregate_train = aggregate_train
    train(strategy, FAST, rounds=1000)
    assert strategy.rule.is_one_per_node
    assert len(seen) >= 2
    assert all(len(set(nodes)) == 4 for nodes in seen)
    assert strategy.proxy.statistics.lost["superseded"] > 30
    assert strategy.proxy.statistics.influence(1001) < 0.5


def test_other_strategies_of_flower_get_what_comes_unless_they_are_asked():
    assert not asynchronous(FedAvg()).rule.is_one_per_node
    assert asynchronous(FedAvg(), robust=Robust(per_node="mean")).rule.is_one_per_node
    assert not asynchronous(Krum(), robust=Robust(per_node="all")).rule.is_one_per_node


def test_a_wrapped_rule_keeps_half_a_buffer_and_the_mean_of_a_node():
    strategy = asynchronous(FedAvg(), buffer_size=3, robust=Robust(per_node="mean"))
    rule = strategy.rule
    x = model()
    metrics = {"num-examples": 1}
    for node, delta in ((1, 2.0), (1, 4.0), (2, 6.0)):
        rule.receive(x, update(node, delta, metrics=metrics))
    again = asynchronous(FedAvg(), buffer_size=3, robust=Robust(per_node="mean")).rule
    again.load_state_dict(rule.state_dict())
    for each in (rule, again):
        y = model()
        each.receive(y, update(3, 0.0, metrics=metrics))
        assert float(y.vector) == pytest.approx((3.0 + 6.0 + 0.0) / 3)
    assert torch.equal(x.vector, torch.zeros(1, dtype=torch.float64))


def test_an_average_node_is_no_suspect_of_the_cap():
    statistics, robust = Statistics(), Robust(max_influence=0.4)
    assert robust.over_its_share(1, 1.0, statistics, lambda: 2) is None
    statistics.weigh(1, 1.0)
    refusal = robust.over_its_share(1, 1.0, statistics, lambda: 2)
    assert (refusal.reason, refusal.blames_node) == ("over-its-share", False)
    statistics.weigh(2, 1.0)
    over = robust.over_its_share(1, 1.0, statistics, lambda: 2)
    assert over is None, "half of two is the average"


def test_claimed_examples_do_not_count_beside_a_median():
    rule = FedBuffRule(2)
    Robust(Median()).around(rule)
    assert not rule.weighted
