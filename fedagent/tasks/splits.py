"""What a node trains on and what it is judged by: at random, by label, by group or by time.

Everything here is deterministic in the generator or seed that it is given. Shares say how a number
of examples is cut, in order; None, once, takes what the others leave: ``(0.2, None)`` holds out the
first fifth, ``(None, 0.1, 0.2)`` trains on what comes before validation and test.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fedagent.errors import require
from fedagent.tasks.partitioning import MIN_EXAMPLES, Indices, Partition, Speeds

Shares = Sequence[float | None]


class Split(NamedTuple):
    """One node's examples, as (n,) positions in the data that all nodes share."""

    train: torch.Tensor
    validation: torch.Tensor


class Splits(tuple[Split, ...]):
    """The splits of nodes 0, 1, ...; a partition id that does not exist is refused by name."""

    def node(self, partition_id: int) -> Split:
        """Return the split of one node.

        Raises
        ------
        ConfigurationError
            If there is no such partition.
        """
        check_partition_id(partition_id, len(self))
        return self[partition_id]

    def training(self, partition_id: int | None) -> torch.Tensor:
        """Return what a node trains on; ``None``: what all of them do, nobody's validation."""
        if partition_id is None:
            return torch.cat([split.train for split in self])
        return self.node(partition_id).train


def check_partition_id(partition_id: int, num_partitions: int) -> None:
    """Raise a ``ConfigurationError`` unless there is such a partition."""
    require(
        0 <= partition_id < num_partitions,
        f"partition-id={partition_id} does not exist: the data is dealt to {num_partitions} "
        "partitions, numbered from 0; raise num_partitions, or start the node with a smaller "
        "partition-id.",
    )


def check_fractions(**fractions: float) -> None:
    """Raise a ``ConfigurationError`` unless these shares of one whole leave something of it."""
    require(
        min(fractions.values()) > 0 and sum(fractions.values()) < 1,
        f"{', '.join(f'{name}={value}' for name, value in fractions.items())} cannot work: a share "
        "must be above 0, and together they must stay below 1 to leave something to train on.",
    )


def sizes(total: int, shares: Shares) -> list[int]:
    """Return how many of `total` examples each share is: rounded, and at least one of each.

    Where there are too few for that, the rest keeps one, and the last shares come before the first.
    """
    found, left = dict.fromkeys(range(len(shares)), 0), total
    asked = [(place, share) for place, share in enumerate(shares) if share is not None]
    for served, (place, share) in enumerate(asked, 1):
        waiting = len(shares) - served  # one example each, as far as it goes
        found[place] = max(0, min(max(1, round(share * total)), left - waiting))
        left -= found[place]
    found[list(shares).index(None)] = left
    return list(found.values())


def cut(examples: Indices, shares: Shares) -> list[Indices]:
    """Cut (N,) examples in their order: by time, if they are sorted by it."""
    return np.split(examples, np.cumsum(sizes(len(examples), shares))[:-1])


def stratified(
    labels: npt.NDArray[np.int64], shares: Shares, rng: np.random.Generator
) -> list[Indices]:
    """Return, sorted, the examples of each share: of every label as many as the share says.

    Parameters
    ----------
    labels : (N,) of the examples.
    shares : see the module's docstring.
    rng : decides which.
    """
    by_label = [
        cut(rng.permutation(np.flatnonzero(labels == label)), shares) for label in np.unique(labels)
    ]
    return [np.sort(np.concatenate(parts)) for parts in zip(*by_label, strict=True)]


def deal(
    labels: npt.NDArray[np.int64],
    num_partitions: int,
    partition: Partition,
    validation_fraction: float,
    *,
    seed: int,
    seconds_per_step: Speeds | None = None,
    groups: npt.NDArray[np.int64] | None = None,
) -> Splits:
    """Deal examples to nodes; each holds some of its own out, and has at least one on each side.

    Parameters
    ----------
    labels : (N,) of the examples.
    num_partitions : nodes, >= 1.
    partition : how the examples are dealt.
    validation_fraction : share of a node's examples that it validates with, in (0, 1).
    seed : of the partition and of what is held out.
    seconds_per_step : speeds of the nodes, for a partition that asks.
    groups : (N,) group of each example, numbered from 0: whole groups are dealt and held out, by
        the label of their last example. None if every example may be parted from any other.

    Raises
    ------
    ConfigurationError
        If a partition has fewer than two, of which it cannot hold one out; or as `partition` does.
    """
    dealt = labels if groups is None else labels_of_groups(groups, labels)
    parts = partition(dealt, num_partitions, seed=seed, seconds_per_step=seconds_per_step)
    splits = []
    for partition_id, part in enumerate(parts):
        require(
            len(part) >= MIN_EXAMPLES,
            f"Partition {partition_id} gets {len(part)} of {len(dealt)} examples (or groups of "
            f"them), and needs {MIN_EXAMPLES}: one to train on and one to validate with. Use fewer "
            "nodes, another partition or more data.",
        )
        shuffled = np.random.default_rng((seed, partition_id)).permutation(part)
        sides = cut(shuffled, (validation_fraction, None))
        if groups is not None:
            sides = [np.flatnonzero(np.isin(groups, side)) for side in sides]
        validation, train = map(torch.from_numpy, sides)
        splits.append(Split(train, validation))
    return Splits(splits)


def labels_of_groups(
    groups: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the (G,) labels of the groups 0 ... G - 1; a mixed group has its last example's."""
    of_group = np.empty(groups.max() + 1, np.int64)
    of_group[groups] = labels
    return of_group
