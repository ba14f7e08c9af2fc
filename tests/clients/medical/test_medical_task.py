from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from clients.medical import MedicalTask
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError
from fedagent.tasks import partitioning

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task(root):
    partition = partial(partitioning.dirichlet, alpha=0.5)
    return MedicalTask(root=root, num_partitions=20, partition=partition, augment=False)


class SaysTumour(nn.Module):
    """Gives the probability .75 to a tumour."""

    def forward(self, images):
        return torch.tensor([0.25, 0.75]).log().expand(len(images), 2)


def fingerprints(images):
    return {image.numpy().tobytes() for image in images}


def test_every_training_image_is_on_one_side_of_one_node(task):
    positions = torch.cat([torch.cat(split) for split in task.splits])
    assert sorted(positions.tolist()) == list(range(len(task.data.train)))
    assert all(len(side) > 0 for split in task.splits for side in split)


def test_no_group_is_torn_apart(task):
    where = {}
    for node, split in enumerate(task.splits):
        for side, positions in split._asdict().items():
            for group in task.data.groups[positions.numpy()].tolist():
                where.setdefault(group, set()).add((node, side))
    assert all(len(places) == 1 for places in where.values())


def test_nodes_hold_different_shares_of_tumours(task, root):
    shares = [float(task.data.train.labels[split.train].float().mean()) for split in task.splits]
    assert max(shares) - min(shares) > 0.8
    even = MedicalTask(root=root, num_partitions=20, partition=partitioning.iid)
    shares = [float(even.data.train.labels[split.train].float().mean()) for split in even.splits]
    assert max(shares) - min(shares) < 0.7


def test_the_seed_decides_the_nodes_but_not_the_test_split(root):
    one, two = (MedicalTask(root=root, num_partitions=5, seed=seed) for seed in (1, 2))
    assert one.data is two.data
    assert one.splits.node(0).train.tolist() != two.splits.node(0).train.tolist()


def test_partitions_that_depend_on_speed_learn_it(root):
    speeds = [1.0, 9.0, 1.0, 1.0]
    task = MedicalTask(
        root=root,
        num_partitions=4,
        partition=partitioning.label_by_speed,
        seconds_per_step=lambda: speeds,
    )
    labels = [set(task.data.train.labels[split.train].tolist()) for split in task.splits]
    assert labels == [{0}, {1}, {0}, {0}]


def test_batches_of_a_node_hold_only_what_it_trains_on(task):
    own = fingerprints(task.data.train.batch(task.splits.node(3).train)[0])
    drawn = set().union(*(fingerprints(b[0]) for b in islice(task.batches(3, 8), 200)))
    assert drawn == own
    assert task.num_examples(3) == len(task.splits.node(3).train)


def test_pooled_batches_hold_nobodys_validation_images(task):
    drawn = next(task.batches(None, 10_000))[1]
    assert len(drawn) == sum(task.num_examples(k) for k in range(20))


def test_augmentation_changes_training_images_and_follows_the_global_seed(task, root):
    augmented = MedicalTask(root=root, num_partitions=20, partition=task.partition)
    originals = fingerprints(task.data.train.batch(slice(None))[0])

    def draw():
        torch.manual_seed(3)
        return next(augmented.batches(3, 8))[0]

    assert len(fingerprints(draw()) & originals) < 4
    assert torch.equal(draw(), draw())


def test_the_loss_knows_how_frequent_classes_are_on_the_node(task):
    labels = task.data.train.labels[task.splits.node(4).train]
    *_, log_frequency = next(task.batches(4, 8))
    tumours = int(labels.sum())
    expected = torch.tensor([len(labels) - tumours + 1, tumours + 1]) / (len(labels) + 2)
    assert torch.allclose(log_frequency.exp(), expected)

    # Of a model that answers 0 to everything, the loss is that of guessing the frequencies.
    silent = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2))
    nn.init.zeros_(silent[1].weight)
    nn.init.zeros_(silent[1].bias)
    batch = torch.zeros(3, 1, 64, 64), torch.tensor([0, 1, 1]), log_frequency
    guessing = -(expected[0].log() + 2 * expected[1].log()) / 3
    assert float(task.loss(silent, batch).detach()) == pytest.approx(float(guessing))


def test_a_node_with_one_class_hardly_moves_the_model(root):
    """Unbalanced, all it teaches is that everything is of that class."""
    lengths = {}
    for balance in (True, False):
        task = MedicalTask(root=root, num_partitions=5, balance=balance, augment=False)
        images, labels, _ = next(task.batches(None, 200))
        log_frequency = task.log_frequency(torch.nonzero(task.data.train.labels == 1)[:, 0])
        torch.manual_seed(1)
        model = task.build_model()
        loss = task.loss(model, (images[labels == 1], labels[labels == 1], log_frequency))
        bias = list(model.parameters())[-1]
        lengths[balance] = float(torch.autograd.grad(loss, bias)[0].norm())
    assert lengths[True] < lengths[False] / 100


def test_the_test_split_is_measured_by_hand_computed_values(task):
    metrics = task.evaluate(SaysTumour(), CPU)
    labels, groups = task.data.test.labels, task.data.test_groups
    of_groups = {group: int(labels[groups == group][0]) for group in groups.tolist()}
    prevalence = sum(of_groups.values()) / len(of_groups)
    assert metrics["accuracy-by-image"] == pytest.approx(float(labels.float().mean()))
    assert metrics["num-examples"] == len(labels)
    assert metrics["accuracy"] == pytest.approx(prevalence)
    assert metrics["accuracy-low"] < prevalence < metrics["accuracy-high"]
    assert [metrics["auroc-low"], metrics["auroc-high"]] == pytest.approx([0.5, 0.5], abs=1e-5)
    assert metrics["auroc"] == pytest.approx(0.5)
    assert metrics["calibration-error"] == pytest.approx(abs(0.75 - prevalence), abs=1e-6)
    expected = -prevalence * np.log(0.75) - (1 - prevalence) * np.log(0.25)
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_node_is_evaluated_on_its_own_validation_images(task):
    labels = task.data.train.labels[task.splits.node(2).validation]
    metrics = task.evaluate(SaysTumour(), CPU, 2)
    assert set(metrics) == {"auroc", "accuracy", "calibration-error", "loss", "num-examples"}
    assert metrics["num-examples"] == len(labels)
    assert metrics["accuracy"] == pytest.approx(float(labels.float().mean()))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_network_learns(root, norm):
    task = MedicalTask(root=root, num_partitions=5, norm=norm, augment=False)
    torch.manual_seed(1)
    model = task.build_model()
    settings = LocalTraining(optimizer="adam", learning_rate=0.003, local_steps=60)
    images = next(task.batches(0, 64))
    first = float(task.loss(model, images).detach())
    train(task, model, iter([images] * 60), settings, CPU)
    assert float(task.loss(model.train(), images).detach()) < first / 2


def test_the_forest_learns_without_seeing_the_test_split(task):
    metrics = task.baseline(num_trees=20)
    assert set(metrics) == set(task.evaluate(SaysTumour(), CPU))
    assert metrics["num-examples"] == len(task.data.test)
    # With near-duplicates on both sides a forest reaches .96 and more.
    assert 0.7 < metrics["accuracy"] < 0.93


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"norm": "layer"}, "choose one of: group, batch"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"test_fraction": 0.0}, "test_fraction=0.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        MedicalTask(**settings)
