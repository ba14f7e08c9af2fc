"""Two nodes through the whole application, step by step against a recursion in NumPy."""

import numpy as np
import pytest

from benchmarks.two_nodes.study import (
    distance,
    gradient,
    growth,
    hessian,
    matrix,
    optimum,
    recursion,
    simulated,
)
from clients.regression import RegressionTask

WEIGHTS = {
    "symmetric": (0.2, 0.2, True),
    "asymmetric": (0.1, 0.6, True),
    "averaging": (0.3, 0.7, True),
    "raw": (0.5, 0.5, False),
    "raw-asymmetric": (0.2, 1.5, False),
}
RATE = 0.5


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_every_step_is_that_of_the_recursion(kind, name):
    c_12, c_21, stochastic = WEIGHTS[name]
    task, path = simulated(
        f"two_node_{kind}",
        25,
        f"learning_rate={RATE}",
        f"mixing.c_12={c_12}",
        f"mixing.c_21={c_21}",
        f"mixing.stochastic={str(stochastic).lower()}",
    )
    expected = recursion(task, matrix(c_12, c_21, stochastic), RATE, 25)
    assert path.shape == (26, 2, 2)
    assert distance(path, expected) < 1e-12
    assert abs(expected[-1] - expected[0]).min() > 0.01  # they went somewhere
    other = recursion(task, matrix(c_21 + 0.1, c_12, stochastic), RATE, 25)
    assert distance(path, other) > 1e-3  # and other weights would have shown


def test_local_steps_and_rate_are_the_nodes_own():
    """B_k steps between two messages: Delta is what they add up to."""
    task, path = simulated("two_node_linear", 1, "local_steps=3", "learning_rate=0.2")
    locally = np.zeros((2, task.dimension))
    for _ in range(3):
        locally -= 0.2 * np.stack([gradient(task, k, locally[k]) for k in (0, 1)])
    np.testing.assert_allclose(path[1], 0.5 * np.ones((2, 2)) @ locally, atol=1e-14)


@pytest.fixture(params=["linear", "logistic"])
def task(request):
    return RegressionTask(request.param, num_examples=64, seed=2)


def test_independent_weights_lead_each_node_to_its_own_optimum(task):
    """c_12 + c_21 < 1: det C > 0, so both gradients vanish, and the pooled one need not."""
    last = recursion(task, matrix(0.1, 0.6, True), RATE, 4000)[-1]
    own = np.stack([optimum(task, 0), optimum(task, 1)])
    np.testing.assert_allclose(last, own, atol=1e-8)
    assert np.linalg.norm(last - optimum(task, None), axis=1).min() > 0.05


def test_equal_columns_lead_both_nodes_to_the_weighted_pooled_optimum(task):
    """c_12 + c_21 = 1: p grad L_1 + (1 - p) grad L_2 = 0 with p = c_11 = c_12."""
    pooled = recursion(task, matrix(0.5, 0.5, True), RATE, 4000)[-1]
    np.testing.assert_allclose(pooled, [optimum(task, None)] * 2, atol=1e-8)
    weighted = recursion(task, matrix(0.3, 0.7, True), RATE, 4000)[-1]
    np.testing.assert_allclose(weighted[0], weighted[1], atol=1e-12)
    residual = 0.3 * gradient(task, 0, weighted[0]) + 0.7 * gradient(task, 1, weighted[0])
    np.testing.assert_allclose(residual, 0, atol=1e-8)
    assert np.linalg.norm(weighted[0] - optimum(task, None)) > 0.01


def test_all_solutions_agree_when_both_nodes_have_the_same_optimum():
    task = RegressionTask("linear", num_examples=64, noise=0.0, difference=0.0)
    own, pooled = optimum(task, 0), optimum(task, None)
    np.testing.assert_allclose(own, pooled, atol=1e-12)
    last = recursion(task, matrix(0.1, 0.6, True), RATE, 4000)[-1]
    np.testing.assert_allclose(last, [pooled] * 2, atol=1e-8)


@pytest.mark.parametrize(
    ("c_12", "c_21", "stochastic", "is_stable"),
    [
        (0.1, 0.6, True, True),
        (0.45, 0.5, True, True),
        (0.45, 0.6, True, False),
        (0.2, 0.3, False, False),
    ],
)
def test_the_optima_attract_exactly_when_the_own_weights_outweigh(
    task, c_12, c_21, stochastic, is_stable
):
    """Stable if and only if c_11 c_22 > c_12 c_21, which is c_12 + c_21 < 1 when stochastic."""
    assert (growth(task, matrix(c_12, c_21, stochastic), RATE) < 1) == is_stable


def test_raw_weights_drive_the_nodes_apart_at_the_predicted_rate():
    task = RegressionTask("linear", num_examples=64, seed=2)
    c = matrix(0.5, 0.5, False)
    path = recursion(task, c, RATE, 200)
    away = np.linalg.norm(path - [optimum(task, 0), optimum(task, 1)], axis=(1, 2))
    assert away[-1] / away[-2] == pytest.approx(growth(task, c, RATE), rel=1e-6)
    assert away[-1] > 1e3


def test_raw_weights_reach_the_pooled_optimum_from_the_same_start_with_the_same_data():
    task = RegressionTask("linear", num_partitions=1, num_examples=64)
    task.num_partitions = 2
    task.examples = lambda node: RegressionTask.examples(task, 0)
    last = recursion(task, matrix(0.5, 0.5, False), RATE, 400)[-1]
    np.testing.assert_allclose(last, [optimum(task, 0)] * 2, atol=1e-8)
    assert growth(task, matrix(0.5, 0.5, False), RATE) > 1  # any difference would grow


@pytest.mark.parametrize("node", [0, 1, None])
def test_derivatives_are_those_of_the_tasks_loss(task, node):
    theta, step = np.array([0.3, -0.7]), 1e-6

    def loss(at):
        model = task.build_model()
        model.weight.data.copy_(model.weight.data.new_tensor(at))
        return task.loss(model, next(task.batches(node, 10**6))).item()

    for d, axis in enumerate(np.eye(2)):
        slope = (loss(theta + step * axis) - loss(theta - step * axis)) / (2 * step)
        assert slope == pytest.approx(gradient(task, node, theta)[d], abs=1e-8)
        bend = (
            gradient(task, node, theta + step * axis) - gradient(task, node, theta - step * axis)
        ) / (2 * step)
        np.testing.assert_allclose(hessian(task, node, theta)[d], bend, atol=1e-7)
