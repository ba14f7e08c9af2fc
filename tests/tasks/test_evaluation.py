import math

import pytest
import torch
from torch import nn

from fedagent.stopping import Metric
from fedagent.tasks.evaluation import classification, evaluating, outputs, over_nodes

PARTS = [
    {"auroc": 0.5, "loss": 2.0, "num-examples": 30.0},
    {"auroc": 0.9, "loss": 6.0, "num-examples": 10.0},
]


@pytest.mark.parametrize("is_training", [True, False])
def test_a_model_is_in_eval_mode_without_gradients_and_gets_its_mode_back(is_training):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train(is_training)
    with evaluating(model):
        assert not model[1].training
        assert not model(torch.ones(1, 2)).requires_grad
    assert model.training is model[1].training is is_training
    with pytest.raises(ZeroDivisionError), evaluating(model):
        1 / 0  # noqa: B018
    assert model.training is is_training
    assert model(torch.ones(1, 2)).requires_grad


def test_outputs_of_batches_come_in_their_order():
    sizes = []
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    batches = torch.arange(5.0)[:, None].split(2)
    found = outputs(model, batches, torch.device("cpu"))
    assert found.flatten().tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert sizes == [2, 2, 1]


def test_classification_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    found = classification(logits, torch.tensor([0, 1, 0]))
    losses = -logits.log_softmax(1)[[0, 1, 2], [0, 1, 0]]
    assert found == {
        "accuracy": pytest.approx(1 / 3),  # of equal logits the first wins
        "loss": pytest.approx(float(losses.mean())),
        "num-examples": 3.0,
    }


@pytest.mark.parametrize(
    ("weights", "auroc", "loss"), [("examples", 0.6, 3.0), ("equal", 0.7, 4.0)]
)
def test_means_over_nodes_weigh_examples_or_nodes(weights, auroc, loss):
    assert over_nodes(PARTS, Metric("auroc"), weights) == {
        "auroc": pytest.approx(auroc),
        "loss": pytest.approx(loss),
        "auroc-worst": 0.5,
        "num-examples": 40.0,
    }


def test_the_worst_node_of_an_error_is_the_one_with_most():
    assert over_nodes(PARTS, Metric("loss", "min"))["loss-worst"] == 6.0


@pytest.mark.parametrize("parts", [PARTS, PARTS[::-1]])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_node_that_has_no_number_is_the_worst_wherever_it_stands(parts, mode):
    parts = [*parts, {**PARTS[0], "auroc": math.nan}]
    for ordered in (parts, parts[::-1]):
        assert math.isnan(over_nodes(ordered, Metric("auroc", mode))["auroc-worst"])


def test_what_some_nodes_lack_is_left_out():
    parts = [PARTS[0], {"loss": 6.0, "num-examples": 10.0}]
    assert over_nodes(parts, Metric("auroc")) == {"loss": 3.0, "num-examples": 40.0}
