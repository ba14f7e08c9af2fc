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
    """Answers class 0."""

    def forward(self, images):
        return torch.eye(10)[0].expand(len(images), 10) * 5.0


def test_a_node_splits_its_partition_into_train_and_validation(task):
    train_part, validation = task.splits.node(3)
    assert (len(train_part), len(validation)) == (32, 8)
    assert sorted(torch.cat([train_part, validation]).tolist()) == list(range(120, 160))
    assert task.num_examples(3) == 32


def test_the_seed_decides_partitions_and_splits():
    def split(seed):
        return VisionTask(
            num_partitions=7, partition=partitioning.dirichlet, seed=seed
        ).splits.node(2)

    assert torch.equal(split(1).train, split(1).train)
    assert split(1).train.tolist() != split(2).train.tolist()


def test_partitions_that_depend_on_speed_learn_it():
    task = VisionTask(
        num_partitions=4,
        partition=partitioning.label_by_speed,
        seconds_per_step=lambda: [1.0, 1.0, 9.0, 1.0],
    )
    slow, fast = (set(task.data.train.labels[task.splits.node(i).train].tolist()) for i in (2, 0))
    assert slow
    assert not slow & fast


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
        == sorted(fingerprints(task.data.train.batch(task.splits.node(3).train)[0]))
    )
    assert first != second


@pytest.mark.parametrize(("batch_size", "expected"), [(20, 20), (32, 32), (500, 32)])
def test_batches_are_full_and_a_small_node_uses_all_it_has(task, batch_size, expected):
    sizes = {len(labels) for _, labels in islice(task.batches(3, batch_size), 5)}
    assert sizes == {expected}


def test_batches_of_a_node_hold_only_its_training_examples(task):
    own = set(fingerprints(task.data.train.batch(task.splits.node(3).train)[0]))
    drawn = {f for images, _ in islice(task.batches(3, 8), 20) for f in fingerprints(images)}
    assert drawn == own


def test_pooled_batches_come_from_all_nodes_but_not_from_their_validation(task):
    everything = next(task.batches(None, 10_000))[0]
    assert len(everything) == 3200
    drawn = set(fingerprints(everything))
    held_out = torch.cat([task.splits.node(i).validation for i in range(100)])
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


def test_the_network_learns(task):
    torch.manual_seed(1)
    model = task.build_model()
    settings = LocalTraining(learning_rate=0.1, local_steps=100)
    train(task, model, task.batches(None, 32), settings, CPU)
    assert task.evaluate(model, CPU)["accuracy"] > 0.5


def test_an_unknown_model_is_refused_with_the_choices():
    with pytest.raises(ConfigurationError, match=r"resnet.*cnn, mlp, linear"):
        VisionTask(model="resnet")
