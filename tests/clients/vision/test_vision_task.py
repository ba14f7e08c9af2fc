from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from clients.vision import VisionTask
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError
from fedagent.tasks import partitioning

CPU = torch.device("cpu")


def in_blocks(labels, num_partitions, *, seed=1, seconds_per_step=None):
    """Deal neighbouring examples, quickly: most tests here do not care which."""
    return np.array_split(np.arange(len(labels)), num_partitions)


@pytest.fixture(scope="module")
def task():
    return VisionTask(num_partitions=100, partition=in_blocks)


class AlwaysZero(nn.Module):
    """Answers class 0, and remembers the mode it was asked in."""

    def forward(self, images):
        self.was_training = self.training
        return torch.eye(10)[0].expand(len(images), 10) * 5.0


def test_a_node_splits_its_partition_into_train_and_validation(task):
    train_part, validation = task.split(3)
    assert (len(train_part), len(validation)) == (32, 8)
    assert sorted(torch.cat([train_part, validation]).tolist()) == list(range(120, 160))
    assert task.num_examples(3) == 32


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_both_sides_of_a_tiny_node_hold_something(fraction):
    split = VisionTask(
        num_partitions=2000, partition=in_blocks, validation_fraction=fraction
    ).split(1999)
    assert (len(split.train), len(split.validation)) == (1, 1)


def test_the_seed_decides_partitions_and_splits():
    def split(seed):
        return VisionTask(num_partitions=7, partition=partitioning.dirichlet, seed=seed).split(2)

    assert torch.equal(split(1).train, split(1).train)
    assert split(1).train.tolist() != split(2).train.tolist()


def test_partitions_that_depend_on_speed_learn_it():
    task = VisionTask(
        num_partitions=4,
        partition=partitioning.label_by_speed,
        seconds_per_step=[1.0, 1.0, 9.0, 1.0],
    )
    slow, fast = (set(task.data.train.labels[task.split(i).train].tolist()) for i in (2, 0))
    assert slow
    assert not slow & fast


@pytest.mark.parametrize("partition_id", [-1, 100])
def test_a_partition_that_does_not_exist_is_refused(task, partition_id):
    with pytest.raises(ConfigurationError, match=f"partition-id={partition_id} does not exist"):
        task.num_examples(partition_id)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_validation_fraction_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(ConfigurationError, match="validation_fraction"):
        VisionTask(validation_fraction=fraction)


def fingerprints(images):
    return [image.numpy().tobytes() for image in images]


def test_an_epoch_shows_every_example_once_and_the_next_in_another_order(task):
    images = [fingerprints(batch) for batch, _ in islice(task.batches(3, 16), 4)]
    first, second = images[0] + images[1], images[2] + images[3]
    assert len(first) == 32
    assert (
        sorted(first)
        == sorted(second)
        == sorted(fingerprints(task.data.train.batch(task.split(3).train)[0]))
    )
    assert first != second


@pytest.mark.parametrize(("batch_size", "expected"), [(20, 20), (32, 32), (500, 32)])
def test_batches_are_full_and_a_small_node_uses_all_it_has(task, batch_size, expected):
    sizes = {len(labels) for _, labels in islice(task.batches(3, batch_size), 5)}
    assert sizes == {expected}


def test_batches_of_a_node_hold_only_its_training_examples(task):
    own = set(fingerprints(task.data.train.batch(task.split(3).train)[0]))
    drawn = {f for images, _ in islice(task.batches(3, 8), 20) for f in fingerprints(images)}
    assert drawn == own


def test_pooled_batches_come_from_all_nodes_but_not_from_their_validation(task):
    everything = next(task.batches(None, 10_000))[0]
    assert len(everything) == 3200
    drawn = set(fingerprints(everything))
    held_out = torch.cat([task.split(i).validation for i in range(100)])
    assert not drawn & set(fingerprints(task.data.train.batch(held_out)[0]))


def test_augmentation_is_off_unless_asked_for(task):
    augmented = VisionTask(partition=task.partition, augment=True)
    originals = set(fingerprints(task.data.train.pixels.float().div(255)))
    assert set(fingerprints(next(task.batches(3, 8))[0])) <= originals
    assert not set(fingerprints(next(augmented.batches(3, 8))[0])) & originals


def test_the_central_test_split_counts_accuracy_by_class(task):
    metrics = task.evaluate(AlwaysZero(), CPU)
    assert metrics["num-examples"] == 1000
    assert metrics["accuracy"] == pytest.approx(0.1)
    assert [metrics[f"accuracy-class-{k}"] for k in range(10)] == [1.0] + [0.0] * 9
    right, wrong = torch.tensor([5.0] + [0.0] * 9).log_softmax(0)[[0, 1]].tolist()
    assert metrics["loss"] == pytest.approx(-(0.1 * right + 0.9 * wrong), rel=1e-5)


@pytest.mark.parametrize(("partition_id", "accuracy"), [(0, 1.0), (99, 0.0)])
def test_a_node_is_evaluated_on_its_own_validation_split(task, partition_id, accuracy):
    metrics = task.evaluate(AlwaysZero(), CPU, partition_id)
    assert set(metrics) == {"accuracy", "loss", "num-examples"}
    assert (metrics["accuracy"], metrics["num-examples"]) == (accuracy, 8)


@pytest.mark.parametrize("is_training", [True, False])
def test_evaluation_runs_in_eval_mode_and_restores_the_mode(task, is_training):
    model = AlwaysZero().train(is_training)
    task.evaluate(model, CPU, 0)
    assert not model.was_training
    assert model.training is is_training


def test_the_network_learns(task):
    torch.manual_seed(1)
    model = task.build_model()
    settings = LocalTraining(learning_rate=0.1, local_steps=100)
    train(task, model, task.batches(None, 32), settings, CPU)
    assert task.evaluate(model, CPU)["accuracy"] > 0.5


def test_an_unknown_model_is_refused_with_the_choices():
    with pytest.raises(ConfigurationError, match=r"resnet.*cnn, mlp, linear"):
        VisionTask(model="resnet")
