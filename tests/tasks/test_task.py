"""What the contract does for every task, whatever its author forgot."""

import pytest
import torch
from torch import nn

from fedagent.errors import ConfigurationError
from fedagent.stopping import Metric
from fedagent.tasks import Showcase, Task

CPU = torch.device("cpu")


class Dice(Task):
    """Its metric is the weight; what it saw while measuring is kept."""

    metric = Metric("pips", "min")
    num_partitions = 3
    found = None

    def build_model(self):
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, 6.0)
        return model

    def num_examples(self, partition_id):
        return partition_id + 1

    def batches(self, partition_id, batch_size):
        yield torch.full((batch_size, 1), -1.0 if partition_id is None else float(partition_id))

    def loss(self, model, batch):
        return model(batch).mean()

    def measure(self, model, device, partition_id):
        self.seen = model.training, torch.is_grad_enabled(), partition_id
        node = 0 if partition_id is None else partition_id
        count = 100.0 if partition_id is None else node + 1.0
        return self.found or {"pips": float(model.weight) + node, "num-examples": count}


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("partition_id", [None, 2])
def test_a_task_measures_in_eval_mode_without_gradients(is_training, partition_id):
    task = Dice()
    model = task.build_model().train(is_training)
    task.evaluate(model, CPU, partition_id)
    assert task.seen == (False, False, partition_id)
    assert model.training is is_training
    assert torch.is_grad_enabled()


def test_a_task_shows_its_model_in_eval_mode_without_gradients_and_nothing_by_default():
    class Shown(Dice):
        def showcase(self, model, device):
            self.seen = model.training, torch.is_grad_enabled()
            return Showcase(texts={"pips": "six"})

    task = Shown()
    model = task.build_model().train()
    assert task.shown(model, CPU).texts == {"pips": "six"}
    assert task.seen == (False, False)
    assert model.training
    assert Dice().shown(model, CPU) == Showcase()


@pytest.mark.parametrize("partition_id", [-1, 3])
def test_a_node_that_does_not_exist_is_not_measured(partition_id):
    task = Dice()
    with pytest.raises(ConfigurationError, match=f"partition-id={partition_id} does not exist"):
        task.evaluate(task.build_model(), CPU, partition_id)
    assert not hasattr(task, "seen")


@pytest.mark.parametrize(
    ("found", "lacks"),
    [({"num-examples": 1.0}, "without pips"), ({"pips": 1.0}, "without num-examples")],
)
def test_metrics_that_lack_what_everything_else_follows_are_refused(found, lacks):
    task = Dice()
    task.found = found
    with pytest.raises(ConfigurationError, match=rf"Dice\.measure returned .* {lacks}"):
        task.evaluate(task.build_model(), CPU)


def test_validation_is_the_mean_over_nodes_by_examples_and_the_worst_of_them():
    task = Dice()
    found = task.validate(task.build_model(), CPU)
    assert found == {
        "pips": pytest.approx((1 * 6 + 2 * 7 + 3 * 8) / 6),
        "pips-worst": 8.0,
        "num-examples": 6.0,
    }


def test_nobody_but_its_nodes_can_validate_a_model_with_a_private_part():
    class Own(Dice):
        private = ("bias",)

    task = Own()
    with pytest.raises(ConfigurationError, match="Own keeps a part of its model on its nodes"):
        task.validate(task.build_model(), CPU)


def test_the_number_to_beat_is_an_untrained_models_unless_the_task_knows_better():
    assert Dice().baseline() == {"pips": 6.0, "num-examples": 100.0}


@pytest.mark.parametrize(("part", "expected"), [("test", 2.0), ("validation", 2.0 + 8 / 6)])
def test_the_centralised_reference_is_trained_by_whoever_asks_and_measured_here(part, expected):
    def train(task, model):
        (batch,) = task.batches(None, 4)
        assert batch.tolist() == [[-1.0]] * 4
        nn.init.constant_(model.weight, 2.0)

    assert Dice().centralised(train, CPU, part)["pips"] == pytest.approx(expected)
