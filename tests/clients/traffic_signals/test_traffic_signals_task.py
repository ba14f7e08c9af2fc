import numpy as np
import pytest
import torch

from clients.traffic_signals import TrafficSignalsTask
from clients.traffic_signals.control import Decisions, ModelController, padded
from clients.traffic_signals.model import PhaseScorer
from clients.traffic_signals.simulation import longest_queue
from fedagent.errors import ConfigurationError

pytest.importorskip("libsumo")
CPU = torch.device("cpu")


@pytest.fixture
def task():
    return TrafficSignalsTask(
        scenarios=("cologne1", "ingolstadt1"), num_partitions=2, training_s=200, test_s=300
    )


def test_a_fresh_policy_gives_green_to_most_standing_vehicles_upstream_with_them():
    rows = np.zeros((3, 6), np.float32)
    rows[:, 0], rows[:, 1] = [4, 2, 3], [0, 3, 0]
    other = rows[:2, :]
    logits = PhaseScorer(8)(*padded([rows, other]))
    assert logits.argmax(-1).tolist() == [1, 1]
    assert logits[1, 2] == -torch.inf, "the second signal has two phases"


def test_the_order_of_phases_does_not_matter():
    torch.manual_seed(0)
    model = PhaseScorer(8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    features, exists = torch.rand(2, 4, 6), torch.ones(2, 4, dtype=torch.bool)
    order = torch.tensor([2, 0, 3, 1])
    turned = model(features[:, order], exists[:, order])
    assert torch.allclose(turned, model(features, exists)[:, order], atol=1e-6)


def test_only_the_decisions_of_a_nodes_own_signal_are_remembered():
    controller = ModelController(PhaseScorer(8), CPU, 3)
    rows = {k: np.full((2, 6), k, np.float32) for k in (1, 3)}
    assert set(controller(rows)) == {1, 3}
    controller({1: rows[1]})
    done = controller.decisions()
    assert done.features.tolist() == [rows[3].tolist()]
    assert done.queues.tolist() == [12.0]


def test_learning_makes_a_phase_likelier_after_which_queues_are_short(task):
    torch.manual_seed(0)
    model = task.build_model()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    count = 400
    features = torch.zeros(count, 2, 6)
    phases = torch.randint(2, (count,))
    queues = torch.cat((torch.zeros(1), 9.0 * phases[:-1]))
    features[:, 1, 2] = 1.0  # what tells the second phase from the first
    done = Decisions(features, torch.ones(count, 2, dtype=torch.bool), phases, queues)
    for _ in range(40):
        optimizer.zero_grad()
        task._loss_of(model, done).backward()
        optimizer.step()
    with torch.no_grad():
        chances = model(features[:1], done.exists[:1]).softmax(-1)
    assert float(chances[0, 0]) > 0.8


def test_the_loss_drives_a_city_and_reaches_every_parameter(task):
    torch.manual_seed(1)
    model = task.build_model()
    task.loss(model, next(task.batches(1, 1))).backward()
    grads = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    assert any(float(g.abs().sum()) > 0 for g in grads)


def test_a_node_trains_on_its_own_signal_and_on_drivers_that_no_test_has(task):
    torch.manual_seed(0)
    own = next(task.batches(1, 50))
    assert set(own.signals.tolist()) == {1}
    assert int(own.seeds.min()) >= 10_000
    assert set(next(task.batches(None, 50)).signals.tolist()) == {0, 1}


def test_a_policy_beats_the_fixed_programmes_and_rules_are_measured_alike(task):
    fixed, queue = task.baseline(), task.under(longest_queue)
    fresh = task.evaluate(task.build_model(), CPU)
    assert set(fixed) == set(fresh) == set(queue)
    assert fresh["trip-time"] < fixed["trip-time"]
    mean = (fresh["trip-time-cologne1"] + fresh["trip-time-ingolstadt1"]) / 2
    assert fresh["trip-time"] == pytest.approx(mean)


def test_validation_has_other_drivers_than_the_test(task):
    model = task.build_model()
    test, validated = task.evaluate(model, CPU), task.validate(model, CPU)
    assert test["trip-time"] != validated["trip-time"]
    own = task.evaluate(model, CPU, 1)
    assert own["trip-time"] == pytest.approx(validated["trip-time-ingolstadt1"])


def test_what_there_is_to_look_at_are_three_bars_per_city(task):
    (axes,) = task.showcase(task.build_model(), CPU).figures["trip-times"].axes
    assert len(axes.patches) == 6
    assert all(bar.get_height() > 10 for bar in axes.patches)


def test_the_shortest_training_has_a_gradient():
    task = TrafficSignalsTask(scenarios=("cologne1",), num_partitions=1, training_s=24)
    model = task.build_model()
    torch.manual_seed(0)
    task.loss(model, next(task.batches(0, 2))).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scenarios": ("atlantis",)}, "atlantis"),
        ({"scenarios": ()}, "scenarios"),
        ({"training_s": 0}, "training_s=0"),
        ({"training_s": 8.0}, "training_s=8.0 must be at least 24"),
        ({"discount": 1.0}, "discount=1.0"),
        ({"num_seeds": 1001}, "num_seeds=1001"),
        ({"test_s": -1.0}, "test_s=-1.0"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        TrafficSignalsTask(**settings)


def test_a_fleet_that_does_not_fit_the_signals_is_refused():
    task = TrafficSignalsTask(scenarios=("cologne1",), num_partitions=2)
    with pytest.raises(ConfigurationError, match=r"fleet\.num_nodes=1 or less"):
        task.num_examples(0)
