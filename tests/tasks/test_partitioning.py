import socket
import warnings
from functools import partial

import numpy as np
import pytest
from datasets import Dataset
from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, ShardPartitioner

from fedagent.errors import ConfigurationError
from fedagent.tasks.partitioning import dirichlet, iid, label_by_speed, shards

LABELS = np.repeat(np.arange(10), 400)


def speeds_20():
    return [float(1 + i % 7) for i in range(20)]


PARTITIONS = {
    "iid": iid,
    "dirichlet": dirichlet,
    "dirichlet, strong skew": partial(dirichlet, alpha=0.05),
    "shards": shards,
    "label_by_speed": label_by_speed,
}


@pytest.fixture(params=PARTITIONS.values(), ids=PARTITIONS.keys())
def partition(request):
    return partial(request.param, LABELS, 20, seconds_per_step=speeds_20)


def test_every_example_belongs_to_exactly_one_partition(partition):
    parts = partition(seed=1)
    assert len(parts) == 20
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))


def test_partitions_are_int64_and_can_be_trained_on_and_validated_with(partition):
    parts = partition(seed=1)
    assert {p.dtype for p in parts} == {np.dtype(np.int64)}
    assert min(map(len, parts)) >= 2


def test_the_seed_decides_the_partitions(partition):
    first, again, other = partition(seed=1), partition(seed=1), partition(seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_partitioning_is_silent_and_needs_no_network(partition, monkeypatch, capfd):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        partition(seed=1)
    assert capfd.readouterr() == ("", "")


def test_partitioning_leaves_the_global_random_state_alone(partition):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    partition(seed=1)
    assert np.array_equal(np.random.get_state()[1], before)


def test_too_little_data_says_how_many_partitions_fit(partition):
    with pytest.raises(ConfigurationError, match="at most 15 partitions"):
        partition.func(np.arange(30) % 3, 20, seconds_per_step=speeds_20)


def _classes_per_node(parts, labels=LABELS):
    return [set(labels[p].tolist()) for p in parts]


def test_iid_parts_are_equal_in_size_and_hold_all_classes():
    parts = iid(LABELS, 30, seed=1)
    assert {len(p) for p in parts} == {133, 134}
    assert all(len(classes) == 10 for classes in _classes_per_node(parts))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_dirichlet_copes_with_many_nodes_and_little_data(alpha, seed):
    # Flower's own partitioner gives up on seven of ten seeds at alpha = 0.1.
    parts = dirichlet(LABELS, 100, alpha=alpha, seed=seed)
    assert min(map(len, parts)) >= 2
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))


def test_smaller_alpha_means_fewer_classes_per_node():
    def mean_classes(alpha):
        return np.mean([len(c) for c in _classes_per_node(dirichlet(LABELS, 20, alpha=alpha))])

    assert mean_classes(0.05) < mean_classes(0.5) < mean_classes(100.0)


def test_dirichlet_tops_small_nodes_up_to_the_minimum_and_no_further():
    bare = dirichlet(LABELS, 50, alpha=0.05, seed=3)
    topped = dirichlet(LABELS, 50, alpha=0.05, seed=3, min_size=20)
    for before, after in zip(bare, topped, strict=True):
        if len(before) < 20:
            assert len(after) == 20
            assert len(before) == 2 or set(before) <= set(after)  # 2: topped up already
        else:
            assert 20 <= len(after) <= len(before)


def test_shards_give_every_node_equally_many_examples_of_few_classes():
    parts = shards(LABELS, 20, shards_per_partition=2, seed=1)
    assert {len(p) for p in parts} == {200}
    assert max(len(c) for c in _classes_per_node(parts)) == 2


def test_shards_leave_out_a_remainder_that_is_no_single_class():
    parts = shards(LABELS, 21, shards_per_partition=3, seed=1)  # 63 shards of 63
    kept = np.concatenate(parts)
    assert len(set(kept)) == len(kept) == 63 * 63
    missing = np.setdiff1d(np.arange(len(LABELS)), kept)
    assert len(set(LABELS[missing])) > 5


def test_slow_nodes_hold_classes_that_nobody_else_has():
    seconds = [1.0, 9.0, 1.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    parts = label_by_speed(LABELS, 10, seconds_per_step=lambda: seconds, slow_labels=[0, 7])
    classes = _classes_per_node(parts)
    assert classes[1] == classes[3] == {0, 7}
    others = set(range(10)) - {0, 7}
    assert all(classes[i] == others for i in range(10) if i not in (1, 3))


def test_slow_labels_are_by_default_as_large_a_share_as_the_slow_nodes():
    parts = label_by_speed(LABELS, 10, seconds_per_step=lambda: range(10), slow_fraction=0.3)
    assert _classes_per_node(parts)[7:] == [{7, 8, 9}] * 3


def test_equally_slow_nodes_are_told_apart_by_their_id():
    parts = label_by_speed(LABELS, 4, seconds_per_step=lambda: [1.0] * 4, slow_labels=[9])
    assert _classes_per_node(parts)[0] == {9}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs the speed of all 4 nodes and got 0"),
        ({"seconds_per_step": lambda: [1.0, 2.0]}, "and got 2"),
        ({"seconds_per_step": lambda: [1.0] * 4, "slow_fraction": 1.0}, "slow_fraction=1.0"),
        ({"seconds_per_step": lambda: [1.0] * 4, "slow_labels": [77]}, "change slow_labels"),
    ],
)
def test_label_by_speed_says_what_it_needs(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        label_by_speed(LABELS, 4, **arguments)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (dirichlet, {"alpha": 0.0}, "alpha=0.0"),
        (dirichlet, {"min_size": 1}, "min_size=1"),
        (shards, {"shards_per_partition": 0}, "shards_per_partition=0"),
        (shards, {"shards_per_partition": 3000}, "lower num_partitions or shards_per_partition"),
    ],
)
def test_settings_that_cannot_work_are_refused(function, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        function(LABELS, 4, **arguments)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 7, 40])
def test_examples_are_dealt_as_flower_datasets_deals_them(count, seed):
    labels = np.random.default_rng(5).integers(0, 7, 2520) * 3 - 5  # a multiple of every 3 * count
    order = np.random.default_rng(seed).permutation(2520)  # theirs cuts without shuffling
    for ours, partitioner, examples in (
        (iid(labels, count, seed=seed), IidPartitioner(count), order),
        (
            dirichlet(labels, count, alpha=5.0, seed=seed),
            DirichletPartitioner(count, "label", 5.0, min_partition_size=0, seed=seed),
            np.arange(2520),
        ),
        (
            shards(labels, count, shards_per_partition=3, seed=seed),
            ShardPartitioner(count, "label", num_shards_per_partition=3, seed=seed),
            np.arange(2520),
        ),
    ):
        partitioner.dataset = Dataset.from_dict({"example": examples, "label": labels[examples]})
        theirs = [partitioner.load_partition(k)["example"][:] for k in range(count)]
        assert [part.tolist() for part in ours] == theirs
