"""FedAT against an oracle that keeps every update in a list, and by hand."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagent import AsyncStrategy, Robust
from fedagent.admission.filters import Filter
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import FedAT, Periodic, fedat
from fedagent.rules.buffer import Buffer
from fedagent.scheduling import FairnessCap, Tiers, Uniform
from fedagent.simulation import Equal, Scripted
from fedagent.stopping import MaxUpdates, MaxVersions
from fedagent.update import Group, Outcome, Rejection, Update
from tests.toy import Log, run

INITIAL = [0.5, -1.0]


@dataclass(frozen=True)
class Sent:
    """A client's model, its examples, its tier (None: no group) and the size of its round."""

    model: tuple[float, float]
    num_examples: float
    tier: int | None
    size: int


def oracle(history, initial=INITIAL):
    """arXiv 2010.05958: w = sum_m T_{M+1-m} / T w_m, of the tiers that have finished a round."""
    x, rounds, waiting = np.array(initial), {}, {}
    for sent in history:
        is_published = False
        if sent.tier is not None:
            waiting.setdefault(sent.tier, []).append(sent)
            if len(waiting[sent.tier]) == sent.size:
                n = np.array([s.num_examples for s in waiting[sent.tier]])
                y = np.array([s.model for s in waiting.pop(sent.tier)])
                rounds.setdefault(sent.tier, []).append(n @ y / n.sum())
                m, T = sorted(rounds), [len(rounds[tier]) for tier in sorted(rounds)]
                w = [rounds[tier][-1] for tier in m]
                x = sum(T[len(m) - 1 - i] / sum(T) * w[i] for i in range(len(m)))
                is_published = True
        yield is_published, sum(map(len, waiting.values())), x


def model_of(initial=INITIAL):
    arrays = {"weight": np.array(initial)}
    return FlatModel(ModelSpec.of(arrays), arrays)


def update(sent, base):
    group = None if sent.tier is None else Group(sent.tier, sent.size)
    delta = torch.tensor(sent.model, dtype=torch.float64) - base
    return Update(1, delta, base, 0, sent.num_examples, group=group)


def check(history, rule=None):
    """Fail unless the rule does what the oracle does; nodes start from the newest model."""
    rule, model = rule or FedAT(), model_of()
    for sent, (is_published, pending, x) in zip(history, oracle(history), strict=True):
        assert rule.receive(model, update(sent, model.vector.clone())) == is_published
        assert rule.pending == pending
        scale = max(1.0, *(abs(v) for s in history for v in s.model))
        np.testing.assert_allclose(model.vector.numpy(), x, rtol=0, atol=1e-12 * scale)


def test_a_history_worked_by_hand():
    """Tier 0 ends three rounds, tier 1 two, tier 2 one: the slowest has weight 3 / 6."""
    rule, model = FedAT(), model_of([0.0])
    by_hand = [
        # tier, model, examples, size, x
        (0, 4.0, 1, 2, 0.0),
        (0, 8.0, 3, 2, 7.0),  # (4 + 3 x 8) / 4, alone
        (1, 1.0, 9, 1, 4.0),  # 1/2 x 7 + 1/2 x 1
        (0, 3.0, 5, 1, 5 / 3),  # 1/3 x 3 + 2/3 x 1
        (2, -4.0, 5, 1, -1.0),  # 1/4 x 3 + 1/4 x 1 + 2/4 x -4
        (1, 5.0, 5, 1, 1.0),  # 1/5 x 3 + 2/5 x 5 + 2/5 x -4
        (0, 6.0, 5, 1, 2 / 3),  # 1/6 x 6 + 2/6 x 5 + 3/6 x -4
    ]
    for tier, client, num_examples, size, x in by_hand:
        base = model.vector.clone()
        delta = torch.tensor([client], dtype=torch.float64) - base
        rule.receive(model, Update(0, delta, base, 0, num_examples, group=Group(tier, size)))
        assert model.vector.item() == pytest.approx(x, abs=1e-14)
    assert rule.metrics() == {f"rounds-of-tier-{m}": 3 - m for m in range(3)}


numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
SIZES = (3, 1, 2)
histories = st.lists(
    st.builds(
        lambda model, num_examples, tier: Sent(model, num_examples, tier, SIZES[tier or 0]),
        st.tuples(numbers, numbers),
        st.floats(2.0**-10, 1e9, width=32),
        st.none() | st.integers(0, 2),
    ),
    max_size=24,
)
quick = settings(max_examples=60, deadline=None)


@quick
@given(history=histories)
def test_it_follows_its_oracle_event_by_event(history):
    check(history)


@quick
@given(history=histories, stop_after=st.integers(0, 24))
def test_a_rule_goes_on_from_its_state_with_the_same_bits(history, stop_after):
    rule, model = FedAT(), model_of()
    for sent in history[:stop_after]:
        rule.receive(model, update(sent, model.vector.clone()))
    resumed, same = FedAT(), model_of()
    resumed.load_state_dict(rule.state_dict())
    same.load_state_dict(model.state_dict())
    for sent in history[stop_after:]:
        rule.receive(model, update(sent, model.vector.clone()))
        resumed.receive(same, update(sent, same.vector.clone()))
    assert torch.equal(model.vector, same.vector)
    assert (resumed.pending, resumed.lost) == (rule.pending, rule.lost)


SCRIPT = [
    Sent((float(i), float(-i * i)), 1.0 + i, tier, SIZES[tier or 0])
    for i, tier in enumerate([0, 0, None, 0, 1, 0, 2, 0, 2, 1, 0, 1, 1, 2, 0, 0, 0, 2])
]


def does_not_reverse_the_counts(patch):
    patch.setattr(fedat, "reversed", lambda tiers: tiers, raising=False)


def leaves_out_how_many_examples_a_node_has(patch):
    right = Buffer.add
    patch.setattr(Buffer, "add", lambda self, delta, weight: right(self, delta))


def sums_deltas_instead_of_models(patch):
    patch.setattr(fedat, "blocks", lambda *vectors: [])


def orders_tiers_by_who_came_first(patch):
    patch.setattr(fedat, "sorted", list, raising=False)


def counts_what_only_measured_a_speed(patch):
    right = FedAT.receive

    def receive(self, model, update):
        group = update.group or Group(0, 3)
        return right(self, model, replace(update, group=group))

    patch.setattr(FedAT, "receive", receive)


@pytest.mark.parametrize(
    "plant",
    [
        does_not_reverse_the_counts,
        leaves_out_how_many_examples_a_node_has,
        sums_deltas_instead_of_models,
        orders_tiers_by_who_came_first,
        counts_what_only_measured_a_speed,
    ],
)
def test_a_planted_mistake_turns_the_check_red(plant, monkeypatch):
    script = [replace(SCRIPT[6], size=1), *SCRIPT]  # the slowest tier is the first to end a round
    check(script)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(script)


def still() -> ClientApp:
    """A client without noise: half way from the model to a number of its own."""
    app = ClientApp()

    @app.train()
    def _train(message, context):
        partition = int(context.node_config["partition-id"])
        arrays = message.content["arrays"].to_torch_state_dict()
        moved = {name: value / 2 + partition for name, value in arrays.items()}
        metrics = MetricRecord({"num-examples": 10 + partition})
        content = RecordDict({"arrays": ArrayRecord(moved), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


@pytest.mark.parametrize("rounds", [1, 4])
def test_one_tier_whose_rounds_ask_everybody_is_flowers_fedavg(rounds):
    log, fleet = Log(), Scripted(num_nodes=6, times=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    ours = AsyncStrategy(
        FedAT(),
        scheduler=Tiers(1, 6, local_steps=3),
        fraction_evaluate=0.0,
        stopping=[MaxVersions(rounds)],
        callbacks=[log],
    )
    synchronous = run(
        FedAvg(fraction_evaluate=0.0), Equal(num_nodes=6), rounds=rounds, client=still()
    )
    same = run(ours, fleet, rounds=1_000, client=still())
    for name, array in synchronous.result.arrays.items():
        np.testing.assert_allclose(array.numpy(), same.result.arrays[name].numpy(), rtol=1e-6)
    assert ours.proxy.statistics.staleness_max == 0 or rounds > 1
    assert log.statistics.num_updates == 6 + 6 * rounds, "each node was ranked once"
    assert ours.rule.lost == {"no-group": 6}


class EveryThird(Filter):
    """Refuses it."""

    num_seen = 0

    def judge(self, update, model):
        self.num_seen += 1
        refusal = Rejection(Outcome.REJECTED, "third", "every third", blames_node=False)
        return update if self.num_seen % 3 else refusal


def test_rounds_go_on_without_what_a_filter_refused():
    strategy = AsyncStrategy(
        FedAT(),
        scheduler=(tiers := Tiers(2, 3)),
        robust=Robust(filters=[EveryThird()], suspicion_limit=100.0),
        fraction_evaluate=0.0,
        stopping=[MaxUpdates(50)],
    )
    run(strategy, Equal(num_nodes=8), rounds=1_000, client=still())
    statistics = strategy.proxy.statistics
    used = statistics.num_updates - strategy.rule.lost["no-group"]
    assert statistics.outcomes["rejected", "third"] >= 10
    assert statistics.version == (used - strategy.rule.pending) // 3 >= 9
    rounds = tiers.state_dict()["turns"]
    assert sum(tier["num_received"] for tier in rounds) == strategy.rule.pending


def test_it_needs_a_scheduler_that_forms_groups():
    with pytest.raises(ConfigurationError, match="Uniform forms none: set scheduler=tiers"):
        AsyncStrategy(FedAT())
    with pytest.raises(ConfigurationError, match="FairnessCap forms none"):
        AsyncStrategy(Periodic(FedAT(), 2.0), scheduler=FairnessCap(Uniform()))
    AsyncStrategy(Periodic(FedAT(), 2.0), scheduler=FairnessCap(Tiers()))


def test_tiers_do_not_wait_for_each_other():
    times = (1.0,) * 4 + (10.0,) * 4
    log = Log()
    strategy = AsyncStrategy(
        FedAT(),
        scheduler=Tiers(2, 3),
        concurrency=8,
        fraction_evaluate=0.0,
        stopping=[MaxUpdates(8 + 66)],
        callbacks=[log],
    )
    run(strategy, Scripted(num_nodes=8, times=times), rounds=1_000, client=still())
    rounds = strategy.rule.metrics()
    assert rounds["rounds-of-tier-0"] >= 8 * rounds["rounds-of-tier-1"] > 0
    assert log.statistics.version == sum(rounds.values())
    sizes = {s.dispatch.group for s in log.settlements if s.outcome == "applied"}
    assert sizes == {None, Group(0, 3), Group(1, 3)}
