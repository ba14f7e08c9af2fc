import numpy as np
import pytest
import torch

from clients.reinforcement import ReinforcementTask
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError

CPU = torch.device("cpu")
SMALL = {"num_partitions": 3, "num_validation": 4, "num_test": 12}


@pytest.fixture
def task():
    return ReinforcementTask(**SMALL)


def test_a_node_has_one_physics_and_pooled_batches_have_all(task):
    torch.manual_seed(0)
    own = next(task.batches(1, 20))
    assert torch.equal(own.factors, task.physics.nodes[[1]].expand(20, -1))
    pooled = next(task.batches(None, 60)).factors.tolist()
    assert {tuple(row) for row in pooled} == {tuple(row) for row in task.physics.nodes.tolist()}


@pytest.mark.parametrize(("share", "furthest"), [(0.0, 0.05), (1.0, 2.4)])
def test_some_machines_begin_where_they_never_would_by_themselves(share, furthest):
    torch.manual_seed(0)
    states = next(ReinforcementTask(exploring=share, **SMALL).batches(0, 500)).states
    assert furthest * 0.9 < float(states[:, 0].abs().max()) <= furthest


def test_the_test_and_every_node_are_judged_on_physics_of_their_own(task, monkeypatch):
    seen = []
    original = task.machines.__init__

    def recorded(self, factors, states):
        seen.append(factors)
        original(self, factors, states)

    monkeypatch.setattr(task.machines, "__init__", recorded)
    model = task.build_model()
    found = task.evaluate(model, CPU)
    task.evaluate(model, CPU, 2)
    assert np.array_equal(seen[0], task.physics.test.numpy())
    assert np.array_equal(seen[1], task.physics.validation[2].numpy())
    assert found["num-examples"] == 12
    assert found == task.evaluate(model, CPU)
    assert found["return-worst-tenth"] <= found["return"] == found["steps"]


def test_training_balances_the_pole_longer(task):
    torch.manual_seed(1)
    model = task.build_model()
    before = task.evaluate(model, CPU)["return"]
    training = LocalTraining(learning_rate=0.03, local_steps=120, momentum=0.9, max_grad_norm=0.5)
    train(task, model, task.batches(None, 16), training, CPU)
    assert task.evaluate(model, CPU)["return"] > 4 * before


def test_an_acrobot_is_judged_by_its_steps(task):
    task = ReinforcementTask(environment="acrobot", **SMALL)
    assert (task.metric.name, task.metric.mode) == ("steps", "min")
    model = task.build_model()
    found = task.evaluate(model, CPU)
    assert found["steps"] == -found["return"] > 50
    task.loss(model, next(task.batches(0, 4))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_number_to_beat_is_the_mean_of_agents_that_know_one_node():
    built = {"baseline_steps": 3, **SMALL}
    alone = [ReinforcementTask(baseline_nodes=n, **built).baseline()["return"] for n in (1, 2, 9)]
    assert len(set(alone)) == 3
    again = ReinforcementTask(baseline_nodes=1, **built).baseline()
    assert again["return"] == alone[0]


def test_what_there_is_to_look_at_is_a_curve_per_quantity(task):
    figure = task.showcase(task.build_model(), CPU).figures["returns"]
    lines = figure.axes[0].lines
    assert {line.get_label() for line in lines} == set(task.machines.factor_ranges)
    assert all(1 <= value <= 500 for line in lines for value in line.get_ydata())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"environment": "pendulum"}, "environment"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"discount": 0.0}, "discount=0.0"),
        ({"exploring": 1.5}, "exploring=1.5"),
        ({"entropy": -1.0}, "entropy=-1.0"),
        ({"baseline_nodes": 0}, "baseline_nodes=0"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        ReinforcementTask(**settings)
