"""Clients trained as one batch end where each ends that is trained by itself."""

import copy
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedagent.client import LocalTraining, train
from fedagent.client.gradients import GradientsOfMany
from fedagent.client.vectorised import ClientShare, VectorisedTrainer
from fedagent.tasks.task import Task

CPU = torch.device("cpu")
STEPS = (3, 1, 4)


class Regression(Task):
    """Batches of 8 examples of 6 numbers in (features, labels) pairs; four classes."""

    def __init__(self, build=None):
        self.build = build or (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)))

    def build_model(self):
        return self.build()

    def num_examples(self, partition_id):
        return 8

    def batches(self, partition_id, batch_size):
        while True:
            yield torch.randn(8, 6), torch.randint(4, (8,))

    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    def measure(self, model, device, partition_id):
        raise NotImplementedError


def parts_of(task, models):
    torch.manual_seed(3)
    return [
        ClientShare(copy.deepcopy(m.state_dict()), list(islice(task.batches(k, 8), steps)))
        for k, (m, steps) in enumerate(zip(models, STEPS, strict=True))
    ]


def both_ways(task, **settings):
    torch.manual_seed(2)
    models = [task.build_model() for _ in STEPS]
    parts = parts_of(task, models)
    training = LocalTraining(learning_rate=0.2, **settings)
    together = VectorisedTrainer(task, models[0], CPU).train(parts, training)
    alone = []
    for model, part, steps in zip(models, parts, STEPS, strict=True):
        model.load_state_dict(part.start)
        settled = LocalTraining(learning_rate=0.2, local_steps=steps, **settings)
        metrics = train(task, model, iter(part.batches), settled, CPU)
        alone.append((model.state_dict(), metrics))
    return together, alone


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"proximal_mu": 0.5},
        {"max_grad_norm": 0.05},
        {"proximal_mu": 0.5, "max_grad_norm": 0.3, "momentum": 0.5},
    ],
    ids=str,
)
def test_each_client_ends_where_it_ends_alone(settings):
    for (state, metrics), (expected, expected_metrics) in zip(
        *both_ways(Regression(), **settings), strict=True
    ):
        assert list(state) == list(expected)
        for name in expected:
            torch.testing.assert_close(state[name], expected[name], rtol=1e-4, atol=1e-6)
        assert metrics == pytest.approx(expected_metrics, rel=1e-5)


def test_normalisation_buffers_and_counters_are_each_clients_own():
    task = Regression(lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))
    for (state, _), (expected, _), steps in zip(*both_ways(task), STEPS, strict=True):
        assert int(state["1.num_batches_tracked"]) == steps
        torch.testing.assert_close(state["1.running_var"], expected["1.running_var"])


def test_tied_parameters_stay_tied_and_frozen_ones_frozen():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.again, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
            self.again.weight = self.inner.weight
            self.out.bias.requires_grad_(False)

        def forward(self, x):
            return self.out(self.again(torch.tanh(self.inner(x))))

    for (state, _), (expected, _) in zip(
        *both_ways(Regression(Tied), weight_decay=0.1), strict=True
    ):
        assert torch.equal(state["inner.weight"], state["again.weight"])
        for name in expected:
            torch.testing.assert_close(state[name], expected[name], rtol=1e-4, atol=1e-6)


def test_gradients_of_single_numbers_are_clipped_too():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.warmth = nn.Linear(6, 4), nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.linear(x) / self.warmth

    for (state, _), (expected, _) in zip(
        *both_ways(Regression(Tempered), max_grad_norm=0.05), strict=True
    ):
        for name in expected:
            torch.testing.assert_close(state[name], expected[name], rtol=1e-4, atol=1e-6)


def test_the_dispatched_models_are_left_alone():
    task = Regression()
    models = [task.build_model() for _ in STEPS]
    parts = parts_of(task, models)
    before = copy.deepcopy([p.start for p in parts])
    VectorisedTrainer(task, models[0], CPU).train(parts, LocalTraining())
    for part, start in zip(parts, before, strict=True):
        assert all(torch.equal(part.start[name], start[name]) for name in start)
    assert all(torch.equal(v, before[0][k]) for k, v in models[0].state_dict().items())


def test_a_loss_that_draws_random_numbers_is_refused():
    task = Regression(lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout()))
    models = [task.build_model() for _ in STEPS]
    with pytest.raises(RuntimeError, match="random"):
        VectorisedTrainer(task, models[0], CPU).train(parts_of(task, models), LocalTraining())


def test_mixed_precision_is_left_to_those_who_train_alone():
    task = Regression()
    model = task.build_model()
    training = LocalTraining(precision="bfloat16")
    with pytest.raises(NotImplementedError, match="bfloat16"):
        VectorisedTrainer(task, model, CPU).train(parts_of(task, [model] * 3), training)


# --- what is recorded -----------------------------------------------------------------------------


def steps_of(task, model, count):
    """Losses, gradients and buffers of `count` steps, each from the same models."""
    gradients = GradientsOfMany(task, model)
    torch.manual_seed(3)
    batch = torch.randn(3, 8, 6), torch.randint(4, (3, 8))
    state = model.state_dict(keep_vars=True)
    model.train()
    seen = []
    for _ in range(count):
        models = {
            name: torch.stack([t.detach()] * 3).requires_grad_(t.requires_grad)
            for name, t in state.items()
        }
        losses, found = gradients(models, batch)
        seen.append([losses, *(g for g in found if g is not None), *models.values()])
    return seen, gradients


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)),
        lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)),
    ],
    ids=["dense", "normalised"],
)
def test_a_recorded_step_is_the_same_to_the_last_bit(build):
    task = Regression(build)
    seen, gradients = steps_of(task, task.build_model(), 60)
    assert list(map(callable, gradients._steps.values())) == [True], "nothing was recorded"
    for tensors in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(tensors, seen[0], strict=True))


def test_a_recorded_loss_is_not_called_again():
    calls = []

    class Counting(Regression):
        def loss(self, model, batch):
            calls.append(1)
            return super().loss(model, batch)

    task = Counting()
    steps_of(task, task.build_model(), 200)
    assert 1 < len(calls) < 100


def test_every_form_is_recorded_by_itself():
    task = Regression()
    model = task.build_model()
    parts = parts_of(task, [model] * 3)
    together = VectorisedTrainer(task, model, CPU)
    first = together.train(parts, LocalTraining())
    for _ in range(60):
        again = together.train(parts, LocalTraining())
    assert len(together._gradients._steps) == 3, "three, two and one client at work"
    for (state, metrics), (expected, expected_metrics) in zip(again, first, strict=True):
        assert metrics == expected_metrics
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_loss_that_cannot_be_recorded_is_computed_all_the_same(caplog, monkeypatch):
    def refuse(step):
        raise RuntimeError("no tracing today")

    monkeypatch.setattr("torch.fx.experimental.proxy_tensor.make_fx", refuse)
    task = Regression()
    with caplog.at_level("INFO", "flwr.fedagent"):
        seen, _ = steps_of(task, task.build_model(), 60)
    assert caplog.text.count("no tracing today") == 1
    assert torch.equal(seen[-1][0], seen[0][0])
