import numpy as np
import pytest
import torch

from clients.regression import RegressionTask
from fedagent.errors import ConfigurationError


def test_data_follows_from_seed_and_node():
    one, two = (RegressionTask(num_partitions=3, seed=4) for _ in range(2))
    for node in range(3):
        for left, right in zip(one.examples(node), two.examples(node), strict=True):
            assert torch.equal(left, right)
    assert not torch.equal(one.examples(0).features, one.examples(1).features)
    assert not torch.equal(one.examples(0).features, one.examples(0, is_validation=True).features)
    assert not torch.equal(
        one.examples(0).features, RegressionTask(num_partitions=3, seed=5).examples(0).features
    )


def test_linear_targets_are_those_of_the_nodes_own_model():
    task = RegressionTask(noise=0.0, difference=2.0, num_examples=50, dimension=3)
    solutions = [
        torch.linalg.lstsq(x, y[:, None]).solution[:, 0] for x, y in map(task.examples, (0, 1))
    ]
    common = RegressionTask(noise=0.0, difference=0.0, num_examples=50, dimension=3)
    w = torch.linalg.lstsq(*(t.reshape(50, -1) for t in common.examples(0))).solution[:, 0]
    for solution in solutions:
        assert torch.linalg.norm(solution - w) == pytest.approx(2.0)


def test_logistic_targets_follow_the_model():
    task = RegressionTask("logistic", num_examples=20_000, difference=0.0)
    x, y = task.examples(0)
    w = torch.from_numpy(np.random.default_rng([1, 0]).normal(size=2))
    expected = torch.sigmoid(x @ w)
    assert set(y.tolist()) == {0.0, 1.0}
    assert float((y - expected).mean()) == pytest.approx(0.0, abs=0.02)
    assert float(((y - expected) * (x @ w)).mean()) == pytest.approx(0.0, abs=0.02)


def test_small_batches_are_shuffled_and_a_full_one_is_not():
    task = RegressionTask(num_examples=8)
    small = task.batches(0, 4)
    epoch = torch.cat([next(small).targets for _ in range(2)])
    assert sorted(epoch.tolist()) == sorted(task.examples(0).targets.tolist())
    full = task.batches(0, 100)
    for _ in range(2):
        assert torch.equal(next(full).targets, task.examples(0).targets)


def test_pooled_data_is_that_of_all_nodes():
    task = RegressionTask(num_partitions=3, num_examples=8)
    assert torch.equal(
        task.examples(None).targets, torch.cat([task.examples(k).targets for k in range(3)])
    )


def test_evaluation_uses_what_was_not_trained_on():
    task = RegressionTask(num_examples=10)
    model, cpu = task.build_model(), torch.device("cpu")
    metrics = task.evaluate(model, cpu, 1)
    y = task.examples(1, is_validation=True).targets
    assert metrics == {"loss": pytest.approx(float(y.square().mean() / 2)), "num-examples": 10.0}
    assert task.evaluate(model, cpu)["num-examples"] == 20.0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "cubic"}, "choose one of: linear, logistic"),
        ({"num_examples": 0}, "num_examples=0"),
        ({"noise": -1.0}, "noise=-1.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        RegressionTask(**settings)
