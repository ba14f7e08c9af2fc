"""Nodes in hidden groups, on real images: the benchmark, shortened."""

import pytest

from benchmarks.collaboration.personalisation import GROUPS, RULES, asynchronous
from fedagent.mixing import adjusted_rand_index


@pytest.fixture(scope="module")
def runs():
    """The best rate of each method, from the benchmark."""
    rates = {"learned": 0.4, "global (FedBuff)": 0.05, "local only": 0.4}
    return {
        name: asynchronous(RULES[name](), "rotated", rate, seed=5, num_updates=400)
        for name, rate in rates.items()
    }


def test_hidden_groups_are_recovered(runs):
    groups = runs["learned"].rule.mixing.groups.tolist()
    assert adjusted_rand_index(groups, GROUPS) >= 0.9


def test_learned_mixing_beats_one_global_model_and_learning_alone(runs):
    learned = runs["learned"].mean[-1]
    assert learned >= max(runs["global (FedBuff)"].mean) + 0.03
    assert learned >= max(runs["local only"].mean) + 0.03


def test_no_node_pays_for_it(runs):
    assert runs["learned"].worst[-1] > max(runs["local only"].worst)
