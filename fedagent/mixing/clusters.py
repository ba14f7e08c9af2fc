"""Groups of alike nodes: hierarchical clustering, and how well two groupings agree."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedagent.errors import require


def average_linkage(similarity: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.int64]:
    """Merge the two most similar groups until none are more similar than `threshold`.

    The similarity of two groups is the mean over all pairs of their members (UPGMA).

    Parameters
    ----------
    similarity : (K, K), symmetric; the diagonal is not looked at.
    threshold : groups that are at most this similar stay apart.

    Returns
    -------
    (K,) the group of every node, numbered from 0 in the order of their first members.
    Time: O(K^2) per merge.
    """
    between = similarity.astype(np.float64, copy=True)
    np.fill_diagonal(between, -np.inf)
    sizes = np.ones(len(between))
    groups = np.arange(len(between))
    while len(between) > 1:
        a, b = sorted(np.unravel_index(int(between.argmax()), between.shape))
        if between[a, b] <= threshold:
            break
        merged = (sizes[a] * between[a] + sizes[b] * between[b]) / (sizes[a] + sizes[b])
        between[a], between[:, a] = merged, merged
        between[a, a] = between[b] = between[:, b] = -np.inf
        sizes[a] += sizes[b]
        groups[groups == b] = a
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def adjusted_rand_index(first: Sequence[int], second: Sequence[int]) -> float:
    """Return how well two groupings of the same nodes agree: 1 if equal, about 0 by chance.

    Hubert, Arabie, "Comparing partitions", Journal of Classification 2, 1985.
    """
    require(
        len(first) == len(second),
        f"Groupings of {len(first)} and of {len(second)} nodes cannot be compared.",
    )
    one, two = (np.unique(groups, return_inverse=True)[1] for groups in (first, second))
    table = np.zeros((one.max() + 1, two.max() + 1))
    np.add.at(table, (one, two), 1)

    def pairs(counts: npt.NDArray[np.float64]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together = pairs(table)
    in_one, in_two = pairs(table.sum(1)), pairs(table.sum(0))
    all_pairs = pairs(np.array([float(len(one))]))
    expected = in_one * in_two / all_pairs if all_pairs else 0.0
    most = (in_one + in_two) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)
