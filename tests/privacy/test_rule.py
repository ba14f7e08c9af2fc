"""`Private`: what a release holds, and what no release may hold."""

import math

import numpy as np
import pytest
import torch

from fedagent import AsyncStrategy
from fedagent.errors import ConfigurationError
from fedagent.mixing import Mixing, ring
from fedagent.model import BLOCK, FlatModel, ModelSpec
from fedagent.privacy import Private, epsilon_of
from fedagent.rules import ASGD, FedAT, FedBuff, Periodic, RingmasterLMO
from fedagent.rules.staleness import constant
from fedagent.update import Update

P = 20_000


def model_of(*names: str) -> FlatModel:
    arrays = {name: np.zeros(P // len(names), np.float32) for name in names}
    return FlatModel(ModelSpec.of(arrays), arrays)


def update(node: int, value: float = 1.0, staleness: int = 0, **known) -> Update:
    return Update(node, torch.full((P,), value), torch.zeros(P), staleness, **known)


def private(**settings) -> Private:
    given = {"inner": FedBuff(buffer_size=1), "buffer_size": 2, "seed": 0} | settings
    return Private(**given)


LONG = math.sqrt(P)  # the norm of an update of ones


def test_a_release_is_the_clipped_sum_with_noise_over_k():
    model, rule = model_of("w"), private(clip_norm=3.0, noise_multiplier=0.5)
    assert not rule.receive(model, update(1, num_examples=1000.0))
    assert not model.vector.any(), "nobody sees anything before the noise is in it"
    assert rule.receive(model, update(2, -1e-9))
    clipped = 3.0 / LONG
    assert model.vector.mean() == pytest.approx(clipped / 2, abs=4 * 0.75 / math.sqrt(P))
    assert model.vector.std() == pytest.approx(0.5 * 3.0 / 2, rel=0.03)


def test_no_update_reaches_further_than_the_norm_however_large_late_or_heavy():
    """Two histories that differ in one node's answer differ by C at most, noise aside."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        size, staleness, examples = 10 ** rng.uniform(-3, 6), int(rng.integers(0, 9)), 1e6
        sums = []
        for value in (size, 0.0):
            rule = private(buffer_size=3, clip_norm=2.0)
            model = model_of("w")
            rule.receive(model, update(1, 0.5))
            rule.receive(model, update(2, value, staleness, num_examples=examples))
            sums.append(rule._sum.clone())
        moved = float((sums[0] - sums[1]).norm())
        assert moved <= 2.0 * (1 + 1e-5)
        assert rule.accountant.spent(2) == pytest.approx(rule.staleness(staleness) ** 2)


def test_the_norm_is_that_of_the_whole_update_however_many_blocks_it_has():
    arrays = {"w": np.zeros(2 * BLOCK + 7, np.float32)}
    model, rule = FlatModel(ModelSpec.of(arrays), arrays), private(clip_norm=2.0)
    rule.receive(model, Update(1, torch.ones(2 * BLOCK + 7), torch.zeros(2 * BLOCK + 7), 0))
    assert float(rule._sum.norm()) == pytest.approx(2.0, rel=1e-4)


def test_the_divisor_is_k_also_where_fewer_come():
    model, rule = model_of("w"), private(buffer_size=10, clip_norm=LONG, noise_multiplier=1e-6)
    rule.receive(model, update(1))
    assert rule.flush(model)
    assert model.vector.mean() == pytest.approx(0.1, rel=1e-3)
    assert not rule.flush(model), "an empty release says nothing"


def test_a_node_waits_for_its_release_and_a_second_update_is_refused():
    model, rule = model_of("w"), private()
    rule.receive(model, update(1))
    assert rule.barred == {1}
    refused = rule.rejection(update(1))
    assert (refused.reason, refused.blames_node) == ("privacy", False)
    assert rule.rejection(update(2)) is None
    rule.receive(model, update(2))
    assert not rule.barred


def test_in_a_tree_a_node_takes_part_once():
    model, rule = model_of("w"), private(tree_releases=2)
    for node in (1, 2):
        rule.receive(model, update(node))
    assert rule.barred == {1, 2}
    for node in (3, 4):
        rule.receive(model, update(node))
    assert not rule.barred
    assert rule.accountant.spent(1) == 2.0  # draws, with z = 1


def test_who_has_spent_the_budget_works_no_more_and_the_others_go_on():
    budget = epsilon_of(math.sqrt(2.0), 1e-5)
    model, rule = model_of("w"), private(epsilon_budget=budget, staleness=constant)
    for others in (2, 3):
        rule.receive(model, update(1))
        rule.receive(model, update(others))
    assert rule.barred == {1}
    assert rule.rejection(update(1)).reason == "privacy"
    assert rule.metrics()["epsilon"] == pytest.approx(budget, rel=1e-6)
    end = rule.end_when_all_are_barred
    assert (end.kind, "1 nodes have spent" in end.detail) == ("completed", True)


def test_late_updates_weigh_and_cost_less():
    rule = private()
    rule.receive(model_of("w"), update(1, staleness=3))
    assert rule.accountant.spent(1) == pytest.approx(0.25)


def test_the_bits_of_adaptive_clipping_are_paid_for():
    model, rule = model_of("w"), private(clip_quantile=0.5, clip_norm=0.1, buffer_size=40)
    for node in range(40):
        rule.receive(model, update(node))
    assert rule.clipping.norm > 0.1
    assert rule.accountant.spent(0) == pytest.approx(1.0 + (0.5 / 2.0) ** 2)


def test_what_cannot_be_clipped_is_not_taken_over():
    arrays = {"w": np.zeros(4, np.float32), "seen": np.array(3)}
    model = FlatModel(ModelSpec.of(arrays), arrays)
    carried = {"seen": torch.tensor(99)}
    rule = private(buffer_size=1)
    rule.receive(model, Update(1, torch.ones(4), torch.zeros(4), 0, carried=carried))
    assert int(model.carried["seen"]) == 3


@pytest.mark.parametrize("tree", [None, 3])
def test_what_comes_after_a_restore_is_the_same_to_the_bit(tree):
    def runs(rule, model, begin, end):
        for node in range(begin, end):
            rule.receive(model, update(node, 0.1 * node, staleness=node % 3))

    def build():
        return private(tree_releases=tree, inner=RingmasterLMO(), seed=None)

    whole, model = build(), model_of("w")
    runs(whole, model, 0, 5)
    resumed, copy = build(), model_of("w")
    resumed.load_state_dict(whole.state_dict())
    copy.load_state_dict(model.state_dict())
    runs(whole, model, 5, 11)
    runs(resumed, copy, 5, 11)
    assert torch.equal(model.vector, copy.vector)
    assert whole.accountant.nodes == resumed.accountant.nodes


def test_without_a_seed_nobody_can_guess_the_noise():
    models = []
    for _ in range(2):
        models.append(model_of("w"))
        private(buffer_size=1, seed=None).receive(models[-1], update(1))
    assert not torch.equal(models[0].vector, models[1].vector)


def test_a_strategy_that_starts_again_draws_other_noise_and_a_seed_the_same():
    for seed in (None, 3):
        rule, models = private(buffer_size=1, seed=seed), []
        fresh = rule.state_dict()
        for _ in range(2):
            rule.load_state_dict(fresh)
            models.append(model_of("w"))
            rule.on_start(models[-1])
            rule.receive(models[-1], update(1))
        assert torch.equal(models[0].vector, models[1].vector) == (seed == 3)


@pytest.mark.parametrize("around", [lambda rule: rule, lambda rule: Periodic(rule, 10.0)])
def test_what_is_undone_after_a_release_stays_paid_and_its_noise_never_comes_again(around):
    rule = private(clip_norm=1e-9, noise_multiplier=1e9)
    outer, models = around(rule), []
    undo = outer.remember()  # as it is before the first update
    for nodes in ((1, 2), (3, 4)):
        models.append(model_of("w"))
        for node in nodes:
            outer.receive(models[-1], update(node))
        outer.flush(models[-1])
        undo()
    assert not torch.equal(models[0].vector, models[1].vector)
    assert rule.accountant.nodes.keys() == {1, 2, 3, 4}
    assert not rule.barred


def test_what_is_undone_within_a_release_waits_for_it_again():
    rule, model = private(buffer_size=3), model_of("w")
    rule.receive(model, update(1))
    undo = rule.remember()
    rule.receive(model, update(2))
    undo()
    assert (rule.pending, rule.barred) == (1, {1, 2})  # of whom the second has lost its update
    assert rule.accountant.nodes.keys() == {1, 2}


def test_who_undoes_a_release_of_a_tree_lets_nobody_into_the_tree_again():
    rule, model = private(tree_releases=2), model_of("w")
    undo = rule.remember()
    for node in (1, 2):
        rule.receive(model, update(node))
    undo()
    assert rule.barred == {1, 2}


def test_a_nodes_share_is_of_what_it_weighs_whatever_it_claims():
    late = update(1, staleness=3, num_examples=600.0)
    assert private().influence(late) == pytest.approx(0.5)


def test_whatever_the_inner_rule_is_it_gets_one_update_per_release():
    for inner in (ASGD(), RingmasterLMO(), FedBuff(buffer_size=2)):
        rule, model = private(inner=inner), model_of("w")
        published = [rule.receive(model, update(node)) for node in range(4)]
        per_version = inner.updates_per_version or 1
        assert published == [False, per_version == 1, False, True]
        assert rule.pending == 0
    assert rule.updates_per_version == 4


def test_it_publishes_by_the_clock_too():
    rule, model = Periodic(private(buffer_size=5, clip_norm=LONG), 10.0), model_of("w")
    rule.receive(model, update(1, arrived_s=3.0))
    assert rule.barred == {1}
    assert rule.advance(model, rule.next_due_s())
    assert not rule.barred
    assert model.vector.any()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"buffer_size": 0}, "buffer_size"),
        ({"noise_multiplier": 0.0}, "nothing is private"),
        ({"clip_quantile": 0.5, "tree_releases": 4}, "do not go together"),
        ({"staleness": lambda tau: 1.0 + tau}, "weigh"),
        ({"inner": Mixing(ring(4))}, "single nodes"),
        ({"inner": FedAT()}, "single nodes"),
        ({"epsilon_budget": 0.1}, "does not pay for one release"),
    ],
)
def test_what_would_not_be_private_is_refused(wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        private(**wrong)


def test_running_statistics_and_queues_at_nodes_are_refused():
    model = model_of("bn.running_mean", "bn.running_var")
    with pytest.raises(ConfigurationError, match=r"running_mean.*GroupNorm"):
        private().on_start(model)
    with pytest.raises(ConfigurationError, match="one job at a time"):
        AsyncStrategy(private(), prefetch=1)


def test_a_membership_attack_guesses_no_better_than_the_guarantee_allows():
    """A canary: one node's update along a direction that nobody else has, in or not.

    Whoever knows everything else thresholds the release along it. For a mu-Gaussian mechanism the
    true positives at a share f of false ones are Phi(Phi^-1(f) + mu) at most, and reach it.
    """
    mu, trials = 1.5, 1500
    scores = {True: [], False: []}
    for trial in range(trials):
        for is_in in (True, False):
            rule = Private(
                FedBuff(buffer_size=1), 2, 1.0, 1 / mu, staleness=constant, seed=2 * trial + is_in
            )
            arrays = {"w": np.zeros(2, np.float32)}
            model = FlatModel(ModelSpec.of(arrays), arrays)
            canary = torch.tensor([100.0 if is_in else 0.0, 0.0])
            rule.receive(model, Update(1, canary, torch.zeros(2), 0))
            rule.receive(model, Update(2, torch.tensor([0.0, 5.0]), torch.zeros(2), 0))
            scores[is_in].append(float(model.vector[0]))
    threshold = np.quantile(scores[False], 0.9)
    hits = float(np.mean(np.array(scores[True]) > threshold))
    allowed = 0.5 * math.erfc(-(-1.2816 + mu) / math.sqrt(2))
    assert hits == pytest.approx(allowed, abs=0.05)
