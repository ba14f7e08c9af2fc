"""Clients trained as one batch end where each ends that is trained by itself."""

import copy
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedagent.client import LocalTraining, train
from fedagent.client.together import Part, Together
from fedagent.task import Task

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

    def evaluate(self, model, device, partition_id=None):
        raise NotImplementedError


def parts_of(task, models):
    torch.manual_seed(3)
    return [
        Part(copy.deepcopy(m.state_dict()), list(islice(task.batches(k, 8), steps)))
        for k, (m, steps) in enumerate(zip(models, STEPS, strict=True))
    ]


def both_ways(task, **settings):
    torch.manual_seed(2)
    models = [task.build_model() for _ in STEPS]
    parts = parts_of(task, models)
    training = LocalTraining(learning_rate=0.2, **settings)
    together = Together(task, models[0], CPU).train(parts, training)
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


def test_the_dispatched_models_are_left_alone():
    task = Regression()
    models = [task.build_model() for _ in STEPS]
    parts = parts_of(task, models)
    before = copy.deepcopy([p.start for p in parts])
    Together(task, models[0], CPU).train(parts, LocalTraining())
    for part, start in zip(parts, before, strict=True):
        assert all(torch.equal(part.start[name], start[name]) for name in start)
    assert all(torch.equal(v, before[0][k]) for k, v in models[0].state_dict().items())


def test_a_loss_that_draws_random_numbers_is_refused():
    task = Regression(lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout()))
    models = [task.build_model() for _ in STEPS]
    with pytest.raises(RuntimeError, match="random"):
        Together(task, models[0], CPU).train(parts_of(task, models), LocalTraining())


def test_mixed_precision_is_left_to_those_who_train_alone():
    task = Regression()
    model = task.build_model()
    training = LocalTraining(precision="bfloat16")
    with pytest.raises(NotImplementedError, match="bfloat16"):
        Together(task, model, CPU).train(parts_of(task, [model] * 3), training)
