"""Published Flower apps with one line changed: the same loss on equal devices, sooner on others."""

from dataclasses import dataclass, field

import pytest

from fedagent import asynchronous, run_simulation
from fedagent.simulation import Equal, Runtime, Straggler
from tests.apps import (
    boosted_trees,
    checkpointing,
    fedadam,
    lora,
    numpy_regression,
    private,
    pytorch_mlp,
    sklearn_logistic,
    tabular,
    vae,
)

NUM_NODES = 6
BY_REPLIES = (
    checkpointing,
    fedadam,
    lora,
    numpy_regression,
    private,
    pytorch_mlp,
    sklearn_logistic,
    tabular,
    vae,
)
APPS = {module.__name__.rpartition(".")[2]: (module.server, module.client) for module in BY_REPLIES}
APPS["boosted_trees_bagging"] = boosted_trees.bagging, boosted_trees.client
CYCLIC = boosted_trees.cyclic, boosted_trees.client


@dataclass
class Curve:
    """What evaluate_fn has measured: (virtual seconds, loss, ...), and the run's result."""

    points: list = field(default_factory=list)
    result: object = None

    @property
    def losses(self):
        return [metrics["loss"] for _, metrics in self.points]

    def reached_s(self, loss):
        return next((at_s for at_s, m in self.points if m["loss"] <= loss), float("inf"))


def run(app, fleet, wrap=lambda strategy: strategy, longer=1):
    """Run an app on a fleet, `longer` times its rounds; look at what its start() is given."""
    server, client = app
    curve = Curve()

    def watched(strategy):
        strategy = wrap(strategy)
        start = strategy.start

        def starting(grid, evaluate_fn, num_rounds, **arguments):
            def evaluate(server_round, arrays):
                metrics = evaluate_fn(server_round, arrays)
                curve.points.append((grid.clock.now(), metrics))
                return metrics

            num_rounds *= longer
            curve.result = start(
                grid=grid, evaluate_fn=evaluate, num_rounds=num_rounds, **arguments
            )
            return curve.result

        strategy.start = starting
        return strategy

    run_simulation(server(watched), client, fleet=fleet, seed=1, runtime=Runtime(workers=0))
    return curve


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_on_equal_devices_it_ends_where_flower_ends(app):
    fleet = Equal(num_nodes=NUM_NODES)
    flower = run(app, fleet)
    ours = run(app, fleet, lambda s: asynchronous(s, buffer_size=NUM_NODES))
    assert flower.losses[-1] < 0.9 * flower.losses[0], "the app does not learn"
    assert ours.losses[-1] == pytest.approx(flower.losses[-1], rel=0.1)
    assert set(ours.result.train_metrics_clientapp) == set(flower.result.train_metrics_clientapp)


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_on_unequal_devices_it_gets_there_sooner(app):
    fleet = Straggler(num_nodes=NUM_NODES, ratio=10.0)
    flower = run(app, fleet)
    target = 1.05 * flower.losses[-1]
    ours = run(app, fleet, lambda s: asynchronous(s, buffer_size=NUM_NODES // 2), longer=3)
    assert ours.reached_s(target) < 0.7 * flower.reached_s(target)


def test_a_model_goes_from_node_to_node_without_waiting_for_the_slow_one():
    """FedXgbCyclic: one node at a time, whichever is idle; every reply is the next model."""
    from fedagent.scheduling import RoundRobin

    fleet = Equal(num_nodes=NUM_NODES)
    flower = run(CYCLIC, fleet)
    one_by_one = {"buffer_size": 1, "concurrency": 1, "scheduler": RoundRobin()}
    ours = run(CYCLIC, fleet, lambda s: asynchronous(s, **one_by_one))
    assert ours.points[-1][1]["trees"] == flower.points[-1][1]["trees"] == 24
    assert ours.losses[-1] == pytest.approx(flower.losses[-1], rel=0.1)


def test_several_nodes_may_hold_the_model_at_once():
    """Replies overwrite each other then, and the model goes on from the one that came last."""
    ours = run(CYCLIC, Straggler(num_nodes=4, ratio=10.0), lambda s: asynchronous(s, buffer_size=1))
    assert ours.losses[-1] < 0.9 * ours.losses[0]
