import numpy as np
import pytest
import torch

from fedagent.errors import ConfigurationError
from fedagent.tasks.splits import (
    check_fractions,
    check_partition_id,
    cut,
    deal,
    labels_of_groups,
    sizes,
    stratified,
)

LABELS = np.repeat([0, 1, 2], [60, 100, 40])


def in_blocks(labels, num_partitions, *, seed=1, seconds_per_step=None):
    return np.array_split(np.arange(len(labels)), num_partitions)


@pytest.mark.parametrize(
    ("total", "shares", "expected"),
    [
        (10, (0.2, None), [2, 8]),
        (10, (None, 0.1, 0.2), [7, 1, 2]),
        (2, (0.01, None), [1, 1]),
        (2, (0.99, None), [1, 1]),
        (3, (None, 0.9, 0.05), [1, 1, 1]),
        (8, (None, 0.45, 0.54), [1, 4, 3]),
        (1, (0.5, None), [0, 1]),
        (0, (0.5, None), [0, 0]),
    ],
)
def test_shares_are_rounded_and_every_part_gets_something_while_there_is_enough(
    total, shares, expected
):
    assert sizes(total, shares) == expected


def test_a_cut_keeps_the_order():
    parts = cut(np.arange(10), (None, 0.1, 0.2))
    assert [part.tolist() for part in parts] == [list(range(7)), [7], [8, 9]]


def test_a_stratified_split_takes_the_same_share_of_every_label_and_loses_nothing():
    parts = stratified(LABELS, (None, 0.1, 0.25), np.random.default_rng(1))
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))
    counts = [np.bincount(LABELS[part]).tolist() for part in parts]
    assert counts == [[39, 65, 26], [6, 10, 4], [15, 25, 10]]
    assert all(np.array_equal(part, np.sort(part)) for part in parts)
    other = stratified(LABELS, (None, 0.1, 0.25), np.random.default_rng(2))
    assert parts[2].tolist() != other[2].tolist()


def test_every_node_holds_out_a_share_of_its_own():
    splits = deal(LABELS, 5, in_blocks, 0.2, seed=1)
    for node, split in enumerate(splits):
        assert (len(split.train), len(split.validation)) == (32, 8)
        own = torch.cat(split).sort().values
        assert own.tolist() == list(range(40 * node, 40 * node + 40))


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_tiny_node_has_something_on_both_sides(fraction):
    for split in deal(LABELS, 100, in_blocks, fraction, seed=1):
        assert (len(split.train), len(split.validation)) == (1, 1)


@pytest.mark.parametrize("count", [0, 1])
def test_a_node_too_small_for_both_sides_is_refused_by_number(count):
    def uneven(labels, num_partitions, *, seed=1, seconds_per_step=None):
        return [np.arange(count, len(labels)), np.arange(count)]

    with pytest.raises(ConfigurationError, match=f"Partition 1 gets {count} of 200 examples"):
        deal(LABELS, 2, uneven, 0.2, seed=1)


def test_the_seed_decides_what_is_held_out():
    one, same, other = (deal(LABELS, 5, in_blocks, 0.2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.node(2).validation, same.node(2).validation)
    assert one.node(2).validation.tolist() != other.node(2).validation.tolist()


def test_groups_stay_together_and_are_dealt_by_their_label():
    groups = np.arange(200) // 4
    seen = {}

    def partition(labels, num_partitions, **_):
        seen["labels"] = labels
        return in_blocks(labels, num_partitions)

    splits = deal(LABELS, 5, partition, 0.3, seed=1, groups=groups)
    assert seen["labels"].tolist() == LABELS[3::4].tolist()
    where = {}
    for node, split in enumerate(splits):
        for side, positions in split._asdict().items():
            for group in groups[positions].tolist():
                where.setdefault(group, set()).add((node, side))
    assert len(where) == 50
    assert all(len(places) == 1 for places in where.values())


def test_a_group_has_the_label_of_its_last_example():
    assert labels_of_groups(np.array([0, 1, 1, 2]), np.array([5, 6, 8, 7])).tolist() == [5, 8, 7]


def test_pooled_training_examples_are_nobodys_validation():
    splits = deal(LABELS, 5, in_blocks, 0.2, seed=1)
    pooled = set(splits.training(None).tolist())
    assert len(pooled) == 160
    assert not pooled & {i for split in splits for i in split.validation.tolist()}
    assert torch.equal(splits.training(3), splits.node(3).train)


@pytest.mark.parametrize("partition_id", [-1, 5])
def test_a_node_that_does_not_exist_is_refused_by_number(partition_id):
    splits = deal(LABELS, 5, in_blocks, 0.2, seed=1)
    for look_up in (splits.node, splits.training, lambda k: check_partition_id(k, 5)):
        with pytest.raises(ConfigurationError, match=f"partition-id={partition_id} does not exist"):
            look_up(partition_id)


@pytest.mark.parametrize(
    "fractions", [{"a": 0.0}, {"a": 1.0}, {"a": float("nan")}, {"b": 0.5, "a": 0.5}, {"a": -0.1}]
)
def test_fractions_that_leave_nothing_are_refused_by_name(fractions):
    with pytest.raises(ConfigurationError, match=f"a={fractions['a']}"):
        check_fractions(**fractions)
    check_fractions(a=0.5, b=0.4)
