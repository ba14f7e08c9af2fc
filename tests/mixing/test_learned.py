"""Weights learned from updates: sketches, clusters, and the groups they find."""

import numpy as np
import pytest
import torch

from fedagent.errors import ConfigurationError
from fedagent.mixing import LearnedMixing, Mixing, adjusted_rand_index, average_linkage
from fedagent.mixing import learned as learning
from fedagent.mixing.sketch import Sketch
from fedagent.rules.staleness import constant
from tests.mixing.sweeps import arrive, flat_model, sweep, synchronous, update

P = 400
GROUPS = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
CENTRES = np.random.default_rng(0).normal(size=(4, P))


def descend(node, theta):
    """A noisy step towards the optimum of the node's group."""
    noise = np.random.default_rng([node, int(1e6 * abs(theta).sum())]).normal(size=P)
    return 0.2 * (CENTRES[GROUPS[node]] - theta) + 0.2 * noise


def test_a_sketch_keeps_angles():
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=20_000))
    y = 0.6 * x + 0.8 * torch.from_numpy(rng.normal(size=20_000))
    sketch = Sketch(20_000, 1024)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(sketch.of(x), sketch.of(y), dim=0) == pytest.approx(
        float(cosine(x, y, dim=0)), abs=3 * (2 / 1024) ** 0.5
    )
    torch.testing.assert_close(sketch.of(2 * x + y), 2 * sketch.of(x) + sketch.of(y))
    assert not torch.equal(sketch.of(x), Sketch(20_000, 1024, seed=1).of(x))


def test_average_linkage_merges_by_the_mean_over_pairs():
    """Nodes 0 and 1 merge at .9. Node 2 is at .5 to one and .1 to the other: .3 on average."""
    similarity = np.array([[1, 0.9, 0.5], [0.9, 1, 0.1], [0.5, 0.1, 1]])
    assert average_linkage(similarity, 0.95).tolist() == [0, 1, 2]
    assert average_linkage(similarity, 0.31).tolist() == [0, 0, 1]
    assert average_linkage(similarity, 0.29).tolist() == [0, 0, 0]


def test_average_linkage_weighs_groups_by_their_size():
    similarity = np.eye(4)
    for a, b, value in ((0, 1, 0.9), (0, 2, 0.8), (1, 2, 0.8), (0, 3, 0.6), (1, 3, 0.6)):
        similarity[a, b] = similarity[b, a] = value
    # Node 3 is at (.6 + .6 + 0) / 3 = .4 to the other three; unweighted it would be at .3.
    assert average_linkage(similarity, 0.35).tolist() == [0, 0, 0, 0]
    assert average_linkage(similarity, 0.45).tolist() == [0, 0, 0, 1]


def test_average_linkage_merges_what_points_apart_if_it_may():
    similarity = np.array([[1, -0.1, -0.6], [-0.1, 1, -0.6], [-0.6, -0.6, 1]])
    assert average_linkage(similarity, -0.05).tolist() == [0, 1, 2]
    assert average_linkage(similarity, -0.3).tolist() == [0, 0, 1]
    assert average_linkage(similarity, -0.9).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("first", "second", "index"),
    [
        ([0, 0, 1, 1], [5, 5, 3, 3], 1.0),
        ([0, 0, 1, 1], [0, 1, 0, 1], -0.5),
        ([0, 0, 1, 1], [0, 0, 1, 2], 4 / 7),
        ([0, 0, 0], [1, 1, 1], 1.0),
        ([0, 0, 1, 1], [0, 0, 0, 0], 0.0),
    ],
)
def test_adjusted_rand_index(first, second, index):
    assert adjusted_rand_index(first, second) == pytest.approx(index)
    assert adjusted_rand_index(second, first) == pytest.approx(index)


def test_groupings_of_different_nodes_do_not_compare():
    with pytest.raises(ConfigurationError, match="cannot be compared"):
        adjusted_rand_index([0, 1], [0])


def test_hidden_groups_are_found_and_their_members_agree():
    learned = LearnedMixing(len(GROUPS), warmup=2)
    rule, model = synchronous(learned, staleness=constant), flat_model(P)
    sweep(rule, model, descend)
    assert learned.metrics() == {"num-groups": 1.0}
    np.testing.assert_allclose(learned.matrix.dense(), 1 / len(GROUPS))
    for _ in range(40):
        theta = sweep(rule, model, descend)
    assert adjusted_rand_index(learned.groups.tolist(), GROUPS) == 1.0
    assert learned.metrics() == {"num-groups": 4.0}
    same = np.equal.outer(GROUPS, GROUPS)
    np.testing.assert_allclose(learned.matrix.dense(), same / 3)
    for node, group in enumerate(GROUPS):
        to_own = np.linalg.norm(theta[node] - CENTRES[group])
        assert to_own < 0.3 * min(
            np.linalg.norm(theta[node] - CENTRES[other]) for other in range(4) if other != group
        )


def test_a_late_node_holds_nobody_up_and_finds_its_group():
    learned = LearnedMixing(4, warmup=2)

    def observe(node, direction):
        learned.observe(node, torch.eye(P, dtype=torch.float64)[direction])

    for number in range(16):
        assert learned.groups.tolist() == [0, 0, 0, 0]
        observe(number % 3, direction=number % 3 // 2)  # nodes 0 and 1 alike, 2 not, 3 silent
    assert learned.groups.tolist() == [0, 0, 1, 2]
    observe(3, direction=1)
    observe(3, direction=1)
    assert learned.groups.tolist() == [0, 0, 1, 1]
    for _ in range(50):
        observe(0, direction=1)
    assert learned.groups.tolist() == [0, 0, 1, 1]  # what comes after the warm-up does not count


@pytest.mark.parametrize("num_heard", [2, 3], ids=["not all", "all"])
def test_nothing_is_grouped_again_once_the_warm_up_is_over(num_heard, monkeypatch):
    learned = LearnedMixing(3, warmup=2)
    for number in range(12):
        node = number % num_heard
        learned.observe(node, torch.eye(P, dtype=torch.float64)[node % 2])
    assert learned.groups.max() > 0
    monkeypatch.setattr(learning, "average_linkage", lambda *_: pytest.fail("grouped again"))
    for number in range(20):
        learned.observe(number % num_heard, torch.ones(P, dtype=torch.float64))


def test_one_node_is_a_group():
    learned = LearnedMixing(1, warmup=1)
    learned.observe(0, torch.ones(P, dtype=torch.float64))
    assert learned.matrix.dense().tolist() == [[1.0]]
    assert learned.metrics() == {"num-groups": 1.0}


def test_alike_nodes_stay_one_group():
    learned = LearnedMixing(6, warmup=2)
    rule, model = synchronous(learned), flat_model(P)
    for _ in range(10):
        sweep(rule, model, lambda node, theta: descend(0, theta + 1e-3 * node))
    assert learned.groups.tolist() == [0] * 6


def test_new_weights_start_with_nothing_lost():
    """What a neighbour of the old group lost to staleness is not owed in the new one."""
    learned = LearnedMixing(2, warmup=2)
    rule, model = Mixing(learned), flat_model(2)
    for node in (0, 1, 0, 1):  # stale from the third on, and at right angles: two groups
        delta = [1.0, 0.0] if node == 0 else [0.0, 1.0]
        arrive(rule, model, update(node, delta, [0, 0], staleness=model.version))
    assert learned.groups.tolist() == [0, 1]
    before = rule.models[1].clone()
    arrive(rule, model, update(1, [0.0, 1.0], before))
    assert (rule.models[1] - before).tolist() == pytest.approx([0.0, 1.0])


def test_what_was_learned_is_resumed():
    whole, resumed = (LearnedMixing(len(GROUPS), warmup=2) for _ in range(2))
    deltas = [descend(n, np.zeros(P)) for n in range(len(GROUPS))] * 2
    for n, delta in enumerate(deltas):
        if n == 17:
            resumed.load_state_dict(whole.state_dict())
        for learned in (whole, resumed)[: 1 + (n >= 17)]:
            learned.observe(n % len(GROUPS), torch.from_numpy(delta))
    assert torch.equal(resumed.similarity(), whole.similarity())
    assert resumed.groups.tolist() == whole.groups.tolist()
    np.testing.assert_array_equal(resumed.matrix.dense(), whole.matrix.dense())


def test_a_resumed_rule_still_owes_what_was_lost_under_learned_weights():
    """What staleness took from neighbours of the learned groups is not forgotten with a restart."""
    build = lambda: Mixing(LearnedMixing(4, warmup=1))  # noqa: E731
    whole, resumed = build(), build()
    model, other = flat_model(2), flat_model(2)

    def late(node):
        direction = [1.0, 0.0] if node < 2 else [0.0, 1.0]
        return update(node, direction, [0, 0], staleness=3)

    for number in range(12):
        arrive(whole, model, late(number % 4))
    assert whole.mixing.groups.tolist() == [0, 0, 1, 1]
    resumed.load_state_dict(whole.state_dict())
    other.load_state_dict(model.state_dict())
    resumed.on_start(other)
    for number in range(8):
        arrive(whole, model, late(number % 4))
        arrive(resumed, other, late(number % 4))
        assert torch.equal(resumed.models, whole.models)


@pytest.mark.parametrize(
    "settings", [{"threshold": 1.5}, {"warmup": 0}, {"sketch_size": 0}, {"num_nodes": 0}]
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        LearnedMixing(**{"num_nodes": 4, **settings})
