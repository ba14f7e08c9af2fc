r"""The weights c_ik with which nodes listen to each other, kept as a list of neighbours.

    c_ik    the weight with which node k receives the update of node i
    sum_i c_ik = 1  for every receiving node k: the columns of C = (c_ik) sum to one

Memory: two numbers per neighbour and one per node; the K x K matrix is never built.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedagent.errors import require

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_TOLERANCE = 1e-6  # of a column's sum: weights may come from a file of float32


class MixingMatrix:
    """Who receives whose update, and with which weight. Nodes are numbered 0 to K - 1.

    Parameters
    ----------
    num_nodes : K >= 1.
    senders, receivers : (E,) i and k of every weight that is not zero; each pair once.
    weights : (E,) c_ik >= 0, finite.
    stochastic : require sum_i c_ik = 1 for every k; False takes raw weights as they are.
    is_connected : warn when updates do not get from every node to every other.

    Attributes
    ----------
    own : (K,) c_kk.

    Raises
    ------
    ConfigurationError
        If an index or a weight cannot be, or a column does not sum to one; the node is named.
    """

    def __init__(
        self,
        num_nodes: int,
        senders: npt.ArrayLike,
        receivers: npt.ArrayLike,
        weights: npt.ArrayLike,
        *,
        stochastic: bool = True,
        is_connected: bool = True,
    ) -> None:
        require(num_nodes >= 1, f"Mixing: num_nodes={num_nodes} must be at least 1.")
        i, k = np.asarray(senders, np.int64), np.asarray(receivers, np.int64)
        c = np.asarray(weights, np.float64)
        self.num_nodes = num_nodes
        self.is_stochastic = stochastic
        _check_entries(num_nodes, i, k, c)
        if stochastic:
            _check_columns(num_nodes, k, c)
        i, k, c = i[c > 0], k[c > 0], c[c > 0]
        self.own = np.zeros(num_nodes)
        self.own[i[i == k]] = c[i == k]
        order = np.lexsort((k, i))
        order = order[i[order] != k[order]]
        self._receivers, self._weights = k[order], c[order]
        self._starts = np.searchsorted(i[order], np.arange(num_nodes + 1))
        if is_connected:
            self._warn_unless_connected()

    @classmethod
    def of(
        cls, matrix: npt.ArrayLike, *, stochastic: bool = True, is_connected: bool = True
    ) -> "MixingMatrix":
        """Wrap a dense (K, K) `matrix` whose entry [i, k] is c_ik."""
        dense = np.asarray(matrix, np.float64)
        require(
            dense.ndim == 2 and dense.shape[0] == dense.shape[1],
            f"Mixing: the weights have shape {dense.shape}; they must be square, one row per "
            "sending and one column per receiving node.",
        )
        i, k = np.nonzero(dense)  # NaN is not zero, and is refused below
        return cls(len(dense), i, k, dense[i, k], stochastic=stochastic, is_connected=is_connected)

    def neighbours(self, sender: int) -> tuple[Indices, Floats]:
        """Return the nodes k != i that receive the update of `sender` i, and their c_ik."""
        row = slice(self._starts[sender], self._starts[sender + 1])
        return self._receivers[row], self._weights[row]

    def dense(self) -> Floats:
        """Return the (K, K) matrix C: to look at, and for its eigenvalues."""
        matrix = np.diag(self.own)
        matrix[self._senders(), self._receivers] = self._weights
        return matrix

    # What a source of weights is asked for; a fixed matrix has little to say.

    @property
    def matrix(self) -> "MixingMatrix":
        """The weights that hold now."""
        return self

    def observe(self, sender: int, delta: Any) -> None:
        """Learn nothing from an update."""

    def metrics(self) -> dict[str, float]:
        """Report nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the weights come from the configuration."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore nothing."""

    def _senders(self) -> Indices:
        return np.repeat(np.arange(self.num_nodes), np.diff(self._starts))

    def _warn_unless_connected(self) -> None:
        import networkx as nx  # noqa: PLC0415  (slow: only those who mix wait for it)

        graph = nx.DiGraph()
        graph.add_nodes_from(range(self.num_nodes))
        graph.add_edges_from(zip(self._senders(), self._receivers, strict=True))
        parts = [sorted(part) for part in nx.strongly_connected_components(graph)]
        if len(parts) > 1:
            smallest = min(parts, key=len)
            warnings.warn(
                f"Mixing: the nodes fall into {len(parts)} parts between which updates do not go "
                f"both ways; one of them is {smallest[:5]}. They will not agree on one model; add "
                "weights between the parts, or use a grouped mixing if that is what you want.",
                stacklevel=4,
            )


def _check_entries(num_nodes: int, i: Indices, k: Indices, c: Floats) -> None:
    require(
        i.shape == k.shape == c.shape and c.ndim == 1,
        f"Mixing: {i.shape} senders, {k.shape} receivers and {c.shape} weights do not match.",
    )
    for name, index in (("sender", i), ("receiver", k)):
        outside = index[(index < 0) | (index >= num_nodes)]
        require(
            outside.size == 0,
            f"Mixing: {name} {outside[:1]} does not exist; nodes are 0 to {num_nodes - 1}.",
        )
    for entry in np.flatnonzero(~(np.isfinite(c) & (c >= 0)))[:1]:
        require(
            False,
            f"Mixing: node {k[entry]} would receive from node {i[entry]} with weight {c[entry]}; "
            "weights must be finite and not negative.",
        )
    pairs, counts = np.unique(i * num_nodes + k, return_counts=True)
    for pair in pairs[counts > 1][:1]:
        require(False, f"Mixing: c[{pair // num_nodes}, {pair % num_nodes}] is given twice.")


def _check_columns(num_nodes: int, k: Indices, c: Floats) -> None:
    sums = np.bincount(k, weights=c, minlength=num_nodes)
    for node in np.flatnonzero(np.abs(sums - 1.0) > _TOLERANCE)[:1]:
        require(
            False,
            f"Mixing: the weights with which node {node} receives sum to {sums[node]:.6g}, not 1. "
            f"Divide column {node} by its sum, or set stochastic=false to use raw weights.",
        )
