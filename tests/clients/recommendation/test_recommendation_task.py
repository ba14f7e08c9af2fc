import math

import pytest
import torch
import torch.nn.functional as F

from clients.recommendation import RecommendationTask
from clients.recommendation.data import Cut
from clients.recommendation.model import Recommender
from clients.recommendation.sampling import Examples
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task():
    return RecommendationTask(num_partitions=20, regularisation=0.0)


def first_batch(task, partition_id, batch_size):
    torch.manual_seed(1)
    return next(task.batches(partition_id, batch_size))


def test_a_node_trains_on_all_its_ratings_but_the_last_two(task):
    batch = first_batch(task, 0, 1000)
    own = task.user(0)
    assert len(batch.items) == 20 - 2
    assert sorted(batch.items.tolist()) == sorted(own.train.items.tolist())
    assert not {*own.validation.items.tolist(), *own.test.items.tolist()} & {*batch.items.tolist()}


def test_a_user_counts_once_whatever_it_rated(task):
    sizes = {len(task.user(k).train) for k in range(20)}
    assert len(sizes) > 10
    assert {task.num_examples(k) for k in range(20)} == {1}


def test_other_items_are_not_rated_but_may_be_held_out(task):
    batches = task.batches(0, 18)
    drawn = torch.cat([next(batches).others.flatten() for _ in range(1500)])
    own = task.user(0)
    assert not torch.isin(own.train.items, drawn).any()
    assert own.test.items.item() in drawn, "a device cannot know what it will rate"
    assert len(drawn.unique()) > 9_000


def test_pooled_batches_hold_everybodys_training_ratings(task):
    cut = task.cut
    batch = first_batch(task, None, len(cut.train))
    keys = batch.users * cut.train.num_items + batch.items
    expected = cut.train.users * cut.train.num_items + cut.train.items
    assert sorted(keys.tolist()) == sorted(expected.tolist())


def hand_made(kind):
    """One rating of item 0 and two other items, scores 2, 1 and -1."""
    task = RecommendationTask(loss=kind, regularisation=0.5)
    model = Recommender(3, "mf", 2)
    with torch.no_grad():
        model.users.vector.weight.copy_(torch.tensor([[1.0, 0.0]]))
        model.users.bias.weight.fill_(0.5)
        model.item.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.5, 0.0]]))
        model.item_bias.weight.copy_(torch.tensor([[0.5], [0.5], [0.0]]))
    others = torch.tensor([[1, 2]]) if kind != "mse" else torch.empty((1, 0), dtype=torch.int64)
    batch = Examples(torch.tensor([0]), torch.tensor([0]), torch.tensor([4.0]), others)
    return float(task.loss(model, batch).detach())


def test_losses_are_those_of_the_papers():
    user, items = 1.25, [1.25, 0.25, 2.25]  # squared norms with biases
    penalty = 0.5 * (user + sum(items) / 3)

    def log_sigma(x):
        return float(F.logsigmoid(torch.tensor(x)))

    assert hand_made("bpr") == pytest.approx(-(log_sigma(1.0) + log_sigma(3.0)) / 2 + penalty)
    bce = -log_sigma(2.0) - log_sigma(-1.0) - log_sigma(1.0)
    assert hand_made("bce") == pytest.approx(bce + penalty)
    assert hand_made("mse") == pytest.approx((4.0 - 2.0) ** 2 + 0.5 * (user + items[0]))


@pytest.mark.parametrize("kind", ["mf", "ncf"])
def test_all_scores_are_those_of_pairs(kind):
    torch.manual_seed(2)
    model = Recommender(7, kind, 4, num_users=3)
    torch.nn.init.normal_(model.item_bias.weight)
    users = torch.tensor([2, 0])
    pairs = torch.stack([model(users, torch.tensor([i, i]))[0] for i in range(7)], 1)
    difference = pairs - model.all_scores(users)
    assert (difference - difference[:, :1]).abs().max() < 1e-6


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("loss", ["bpr", "bce", "mse"])
def test_items_that_training_does_not_touch_stay_as_they_are(loss, optimizer):
    task = RecommendationTask(loss=loss, num_partitions=5)
    torch.manual_seed(1)
    model = task.build_model()
    before = model.item.weight.detach().clone()
    drawn = [next(task.batches(0, 18)) for _ in range(2)]
    train(task, model, iter(drawn), LocalTraining(optimizer, 0.1, 2), CPU)
    changed = (model.item.weight != before).any(1).nonzero().flatten()
    touched = torch.cat([t.flatten() for b in drawn for t in (b.items, b.others)]).unique()
    assert changed.tolist() == touched.tolist()


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("loss", ["bpr", "bce"])
def test_central_training_learns_to_rank(model, loss):
    task = RecommendationTask(model=model, loss=loss, num_partitions=20, regularisation=0.0)
    torch.manual_seed(1)
    panel = task.build_panel()
    train(task, panel, task.batches(None, 256), LocalTraining("adam", 0.02, 60), CPU)
    everything = panel.all_scores(torch.arange(20))
    rated = everything[task.cut.train.users, task.cut.train.items]
    assert rated.mean() > everything.mean() + 1


def test_central_training_learns_stars():
    task = RecommendationTask(loss="mse", num_partitions=20, held_out=0.1)
    torch.manual_seed(1)
    panel = task.build_panel()
    before = task.scores(panel, task.cut.test)["rmse"]
    train(task, panel, task.batches(None, 256), LocalTraining("adam", 0.02, 150), CPU)
    assert task.scores(panel, task.cut.test)["rmse"] < before - 0.05


def test_the_servers_users_follow_from_the_items_alone(task):
    torch.manual_seed(1)
    model = task.build_model()
    panel = task.fitted_panel(model, CPU)
    torch.rand(3)
    state = torch.get_rng_state()
    model.users.vector.weight.data += 1.0  # whose vector this is does not matter
    again = task.fitted_panel(model, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(panel.users.vector.weight, again.users.vector.weight)
    assert torch.equal(panel.item.weight, model.item.weight)


def test_the_servers_users_are_fitted_without_held_out_ratings():
    task = RecommendationTask(num_partitions=20)
    torch.manual_seed(1)
    model = task.build_model()
    before = task.fitted_panel(model, CPU).users.vector.weight
    nobodys = task.cut.test.where(torch.arange(0))
    task.cut = Cut(task.cut.train, nobodys, nobodys)
    assert torch.equal(task.fitted_panel(model, CPU).users.vector.weight, before)


def test_a_node_evaluates_on_its_validation_rating(task):
    model = task.build_model()
    own = task.user(3)
    with torch.no_grad():
        model.item_bias.weight[own.validation.items] = 100.0
    metrics = task.evaluate(model, CPU, 3)
    assert (metrics["hit-rate-at-10"], metrics["num-examples"]) == (1.0, 1.0)
    assert task.evaluate(model, CPU, 4)["hit-rate-at-10"] == 0.0


def test_the_server_reports_on_the_test_unless_asked_otherwise():
    def hits(report: str) -> float:
        task = RecommendationTask(num_partitions=1, report=report)
        model = task.build_model()
        with torch.no_grad():
            model.item_bias.weight[task.cut.test.items] = 100.0
        return task.evaluate(model, CPU)["hit-rate-at-10"]

    assert hits("test") == 1.0
    # On validation the test item is one more that the user has not rated: it comes first.
    assert hits("validation") == 0.0


def test_stars_are_measured_on_the_scale():
    task = RecommendationTask(loss="mse", num_partitions=2)
    model = task.build_panel()
    torch.nn.init.constant_(model.item_bias.weight, 100.0)
    error = task.scores(model, task.cut.test)["rmse"]
    assert error == pytest.approx(math.sqrt((5.0 - task.cut.test.values).square().mean()))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"model": "svd"}, "mf, ncf"),
        ({"loss": "l2"}, "bpr, bce, mse"),
        ({"report": "train"}, "test, validation"),
        ({"held_out": 0.1}, "one item each"),
        ({"loss": "mse", "held_out": 0.4}, "held_out"),
        ({"num_others": 0}, "num_others"),
        ({"regularisation": float("nan")}, "regularisation"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        RecommendationTask(**arguments)


def test_more_nodes_than_users_are_told_how_many_there_are():
    with pytest.raises(ConfigurationError, match=r"fleet\.num_nodes=671"):
        RecommendationTask(num_partitions=672).num_examples(0)
    with pytest.raises(ConfigurationError, match="partition-id=20"):
        RecommendationTask(num_partitions=20).num_examples(20)


@pytest.mark.parametrize("loss", ["bpr", "mse"])
def test_a_server_validates_with_users_that_it_fits_as_it_tests(loss):
    choosing = RecommendationTask(num_partitions=20, loss=loss, panel_steps=3, report="validation")
    model = choosing.build_model()
    found = RecommendationTask(num_partitions=20, loss=loss, panel_steps=3).validate(model, CPU)
    assert found == choosing.evaluate(model, CPU)
