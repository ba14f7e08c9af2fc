"""From the labels of one data set to one partition per node.

Every function here is a `Partition` and follows its contract; it is deterministic in `seed`.

    iid             equal and alike: the control
    dirichlet       label skew and size skew, Dir(alpha) per class
    shards          label skew, equal sizes: s shards of the label-sorted data per node
    label_by_speed  the slowest nodes hold classes that nobody else has

The first three are those of Flower Datasets, draw by draw: the same seed deals the same examples.
They are written out here because that package takes two seconds to import, and brings pandas,
pyarrow and seaborn to every device.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedagent.errors import require

Indices = npt.NDArray[np.int64]

Speeds = Callable[[], Sequence[float]]
"""Returns how slow each node is, in seconds per step. It is called only by a partition that depends
on them: a fleet of a million draws for many seconds."""

MIN_EXAMPLES = 2
"""A node needs one example to train on and one to validate with."""


class Partition(Protocol):
    """What partitions a data set, called with everything that a partition may depend on."""

    def __call__(
        self,
        labels: npt.ArrayLike,
        num_partitions: int,
        *,
        seed: int = ...,
        seconds_per_step: Speeds | None = ...,
    ) -> list[Indices]:
        """Deal the examples to nodes.

        Parameters
        ----------
        labels : (N,) class of each example.
        num_partitions : number of nodes, P >= 1.
        seed : decides everything random.
        seconds_per_step : returns how slow each of the P nodes is; None when that is unknown.

        Returns
        -------
        list[Indices]
            P disjoint arrays of example indices, at least `MIN_EXAMPLES` in each. Together they
            are all N examples, unless a function documents which ones it leaves out.

        Raises
        ------
        ConfigurationError
            If these labels cannot be partitioned as asked.
        """


def iid(
    labels: npt.ArrayLike,
    num_partitions: int,
    *,
    seed: int = 1,
    seconds_per_step: Speeds | None = None,
) -> list[Indices]:
    """Shuffle the examples and cut them into equal parts (sizes differ by at most one)."""
    classes = _classes(labels, num_partitions)
    order = np.random.default_rng(seed).permutation(len(classes))
    return np.array_split(order, num_partitions)


def dirichlet(
    labels: npt.ArrayLike,
    num_partitions: int,
    *,
    alpha: float = 0.5,
    min_size: int = MIN_EXAMPLES,
    seed: int = 1,
    seconds_per_step: Speeds | None = None,
) -> list[Indices]:
    """Divide each class among the nodes by a draw from Dir(alpha, ..., alpha).

    Small alpha means few classes per node and very different sizes; alpha -> infinity is `iid`.
    Flower's partitioner meets a minimum size by drawing everything again, which fails for most
    seeds at 100 nodes, 4,000 examples and alpha = 0.1. Here one draw is kept, and a node below
    `min_size` receives random examples of whichever node holds most at that moment.

    Parameters
    ----------
    alpha : concentration, > 0.
    min_size : fewest examples on a node, >= 2.

    Notes
    -----
    Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", arXiv 1909.06335; per class as in Yurochkin et al., arXiv 1905.12022.
    """
    require(
        alpha > 0,
        f"dirichlet: alpha={alpha} must be positive; 0.1 is strong skew, 100 nearly none.",
    )
    classes = _classes(labels, num_partitions, min_size)
    rng = np.random.default_rng(seed)
    pieces = []  # (classes, P) arrays
    for label in np.unique(classes):
        examples = np.flatnonzero(classes == label)
        cuts = np.cumsum(rng.dirichlet(np.full(num_partitions, float(alpha)))) * len(examples)
        pieces.append(np.split(examples, cuts.astype(int)[:-1]))
    parts = [np.concatenate(of_one_node) for of_one_node in zip(*pieces, strict=True)]
    for part in parts:
        rng.shuffle(part)
    return _topped_up(parts, min_size, np.random.default_rng(seed))


def shards(
    labels: npt.ArrayLike,
    num_partitions: int,
    *,
    shards_per_partition: int = 2,
    seed: int = 1,
    seconds_per_step: Speeds | None = None,
) -> list[Indices]:
    """Sort by label, cut into P * `shards_per_partition` equal shards, deal them at random.

    All nodes hold equally many examples of about `shards_per_partition` classes. When N is no
    multiple of the number of shards, N mod (P * `shards_per_partition`) random examples are left
    out, so that no class loses more than its part.

    Parameters
    ----------
    shards_per_partition : shards on each node, >= 1.

    Notes
    -----
    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    arXiv 1602.05629, section 3 ("pathological non-IID").
    """
    require(
        shards_per_partition >= 1,
        f"shards: shards_per_partition={shards_per_partition} must be at least 1.",
    )
    classes = _classes(labels, num_partitions)
    num_shards = num_partitions * shards_per_partition
    require(
        len(classes) >= num_shards,
        f"shards: {num_shards} shards cannot be cut from {len(classes)} examples; lower "
        "num_partitions or shards_per_partition.",
    )
    kept = np.random.default_rng(seed).permutation(len(classes))
    kept = np.sort(kept[: len(classes) - len(classes) % num_shards])
    by_label = kept[np.argsort(classes[kept], kind="stable")].reshape(num_shards, -1)
    rng = np.random.default_rng(seed)
    dealt = rng.permutation(num_shards).reshape(num_partitions, shards_per_partition)
    parts = [by_label[numbers].ravel() for numbers in dealt]
    for part in parts:
        rng.shuffle(part)
    return parts


def label_by_speed(
    labels: npt.ArrayLike,
    num_partitions: int,
    *,
    slow_fraction: float = 0.2,
    slow_labels: Sequence[int] | None = None,
    seed: int = 1,
    seconds_per_step: Speeds | None = None,
) -> list[Indices]:
    """Give the slowest nodes classes that nobody else has, and the others all other classes.

    The case in which ignoring stale updates costs whole classes. Within the two groups examples
    are dealt at random and equally.

    Parameters
    ----------
    slow_fraction : share of the nodes that is slow, in (0, 1); at least one node is, and at least
        one is not. Among equally slow nodes the lower partition id counts as slower.
    slow_labels : the classes that only slow nodes hold. None takes the highest ones, as large a
        share of the classes as `slow_fraction`.
    """
    require(
        0 < slow_fraction < 1,
        f"label_by_speed: slow_fraction={slow_fraction} must lie between 0 and 1.",
    )
    seconds = seconds_per_step() if seconds_per_step else ()
    require(
        len(seconds) == num_partitions,
        f"label_by_speed needs the speed of all {num_partitions} nodes and got {len(seconds)}; "
        "pass seconds_per_step (a simulated fleet has it), or choose another partition.",
    )
    require(num_partitions >= 2, "label_by_speed needs a slow and a fast node; use at least 2.")
    classes = _classes(labels, num_partitions)
    present = np.unique(classes)
    if slow_labels is None:
        slow_labels = present[-_share(slow_fraction, len(present)) :].tolist()
    is_slow_label = np.isin(classes, list(slow_labels))

    slowest_first = np.argsort(-np.asarray(seconds, float), kind="stable")
    num_slow = _share(slow_fraction, num_partitions)
    rng = np.random.default_rng(seed)
    parts: list[Indices] = [np.empty(0, np.int64)] * num_partitions
    for nodes, examples in (
        (slowest_first[:num_slow], np.flatnonzero(is_slow_label)),
        (slowest_first[num_slow:], np.flatnonzero(~is_slow_label)),
    ):
        require(
            len(examples) >= MIN_EXAMPLES * len(nodes),
            f"label_by_speed: {len(nodes)} nodes share {len(examples)} examples when the slow "
            f"labels are {list(slow_labels)}, and each needs {MIN_EXAMPLES}; change "
            "slow_labels or slow_fraction, or use fewer nodes.",
        )
        for node, part in zip(
            nodes, np.array_split(rng.permutation(examples), len(nodes)), strict=True
        ):
            parts[node] = part
    return parts


def _share(fraction: float, count: int) -> int:
    """Return `fraction` of `count`, rounded, but neither none nor all of them."""
    return min(max(1, round(fraction * count)), max(1, count - 1))


def _classes(
    labels: npt.ArrayLike, num_partitions: int, min_size: int = MIN_EXAMPLES
) -> npt.NDArray[np.int64]:
    """Return `labels` as an array that is large enough for `num_partitions`."""
    require(num_partitions >= 1, f"num_partitions={num_partitions} must be at least 1.")
    require(
        min_size >= MIN_EXAMPLES,
        f"min_size={min_size} must be at least {MIN_EXAMPLES}: one "
        "example to train on and one to validate with.",
    )
    classes = np.asarray(labels, dtype=np.int64)
    require(classes.ndim == 1, f"labels must be one class per example, not {classes.shape}.")
    require(
        len(classes) >= num_partitions * min_size,
        f"{len(classes)} examples are too few for {num_partitions} partitions of at least "
        f"{min_size}; use at most {len(classes) // min_size} partitions or more data.",
    )
    return classes


def _topped_up(parts: list[Indices], min_size: int, rng: np.random.Generator) -> list[Indices]:
    """Move random examples from the largest parts to those with fewer than `min_size`."""
    parts = list(parts)
    for receiver in range(len(parts)):
        while len(parts[receiver]) < min_size:
            giver = max(range(len(parts)), key=lambda i: len(parts[i]))
            given = int(rng.integers(len(parts[giver])))
            parts[receiver] = np.append(parts[receiver], parts[giver][given])
            parts[giver] = np.delete(parts[giver], given)
    return parts
