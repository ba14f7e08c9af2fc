r"""Mixing matrices by name: of a graph, of groups, of two nodes, of a file.

    c_ik = 1 / (1 + max(deg i, deg k))  for neighbours i and k,    c_kk = 1 - sum_{i != k} c_ik

are the Metropolis-Hastings weights (Xiao, Boyd, Kim, "Distributed average consensus with
least-mean-square deviation", J. Parallel Distrib. Comput. 67, 2007, section 5). They are symmetric,
so rows sum to one as well and every node counts the same in the end. On a regular graph they are
1 / (1 + degree), on the complete graph 1 / K.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedagent.errors import require
from fedagent.mixing.matrix import MixingMatrix

if TYPE_CHECKING:
    import networkx

_DELIMITERS = {".csv": ",", ".txt": None}


def metropolis(graph: "networkx.Graph", *, is_connected: bool = True) -> MixingMatrix:
    """Return the Metropolis-Hastings weights of any networkx graph.

    Parameters
    ----------
    graph : undirected, its nodes named 0 to K - 1; loops and edge attributes are ignored.
    is_connected : warn when it is not.
    """
    num_nodes = graph.number_of_nodes()
    require(
        not graph.is_directed() and set(graph) == set(range(num_nodes)),
        "Mixing: Metropolis weights need an undirected graph whose nodes are 0 to K - 1; see "
        "networkx.Graph.to_undirected and networkx.convert_node_labels_to_integers.",
    )
    edges = np.array([(i, k) for i, k in graph.edges if i != k], np.int64).reshape(-1, 2)
    degrees = np.bincount(edges.ravel(), minlength=num_nodes)
    weights = 1.0 / (1 + degrees[edges].max(axis=1))
    own = 1.0 - np.bincount(edges.ravel(), weights.repeat(2), minlength=num_nodes)
    nodes = np.arange(num_nodes)
    return MixingMatrix(
        num_nodes,
        np.concatenate([edges[:, 0], edges[:, 1], nodes]),
        np.concatenate([edges[:, 1], edges[:, 0], nodes]),
        np.concatenate([weights, weights, own.clip(min=0.0)]),
        is_connected=is_connected,
    )


def complete(num_nodes: int) -> MixingMatrix:
    """Return c_ik = 1/K: everybody hears everybody, and all models stay the same."""
    return metropolis(_networkx().complete_graph(_counted(num_nodes)))


def ring(num_nodes: int) -> MixingMatrix:
    """Return weights of 1/3 for a node and its two neighbours."""
    return metropolis(_networkx().cycle_graph(_counted(num_nodes)))


def torus(rows: int, columns: int | None = None) -> MixingMatrix:
    """Return weights of 1/5 for a node and its four neighbours on a grid that wraps around.

    Parameters
    ----------
    rows, columns : of the grid; with rows alone, that many nodes on the grid nearest to a square.
    """
    if columns is None:
        require(rows >= 1, f"Mixing: a torus of {rows} nodes is too small.")
        rows, columns = _nearest_square(rows)
    nx = _networkx()
    grid = nx.grid_2d_graph(rows, columns, periodic=True)
    return metropolis(nx.convert_node_labels_to_integers(grid, ordering="sorted"))


def star(num_nodes: int) -> MixingMatrix:
    """Return the weights of a star: node 0 hears everybody, the others hear node 0 (1/K)."""
    return metropolis(_networkx().star_graph(_counted(num_nodes) - 1))


def erdos_renyi(num_nodes: int, probability: float = 0.2, seed: int = 0) -> MixingMatrix:
    """Return the weights of a graph that has each edge with `probability` in [0, 1]."""
    require(0.0 <= probability <= 1.0, f"Mixing: probability={probability} must lie in [0, 1].")
    graph = _networkx().fast_gnp_random_graph(_counted(num_nodes), probability, seed=seed)
    return metropolis(graph)


def grouped(groups: Sequence[int] | int, num_nodes: int | None = None) -> MixingMatrix:
    """Return c_ik = 1 / |group| inside a group and 0 between groups.

    Parameters
    ----------
    groups : (K,) the group of every node; or a number of groups, with node k in k mod groups.
    num_nodes : K, when `groups` is a number.

    Raises
    ------
    ConfigurationError
        If `groups` is a number and `num_nodes` is missing or smaller.
    """
    if isinstance(groups, int):
        require(
            num_nodes is not None and 1 <= groups <= num_nodes,
            f"Mixing: {groups} groups need num_nodes, and at least that many; it is {num_nodes}.",
        )
        groups = [k % groups for k in range(num_nodes or 0)]
    members: dict[int, list[int]] = {}
    for node, group in enumerate(groups):
        members.setdefault(group, []).append(node)
    pairs = [(i, k, 1.0 / len(g)) for g in members.values() for i in g for k in g]
    return MixingMatrix(len(groups), *zip(*pairs, strict=True), is_connected=False)


def pair(c_12: float = 0.5, c_21: float = 0.5, stochastic: bool = True) -> MixingMatrix:
    """Return the weights of two nodes: 2 hears 1 with c_12, and 1 hears 2 with c_21.

    Parameters
    ----------
    c_12, c_21 : >= 0, and at most 1 when stochastic.
    stochastic : let each node keep the rest, c_11 = 1 - c_21 and c_22 = 1 - c_12. False: c_kk = 0,
        a node moves by what the other sends and by nothing else.
    """
    own = (1.0 - c_21, 1.0 - c_12) if stochastic else (0.0, 0.0)
    matrix = [[own[0], c_12], [c_21, own[1]]]
    return MixingMatrix.of(matrix, stochastic=stochastic)


def from_file(path: str, stochastic: bool = True) -> MixingMatrix:
    """Read a dense matrix, one row per sending node: .npy, .csv (commas) or .txt (spaces).

    Raises
    ------
    ConfigurationError
        If the file cannot be read or its weights cannot be.
    """
    file = Path(path)
    known = (*_DELIMITERS, ".npy")
    require(
        file.suffix in known,
        f"Mixing: {path!r} has an unknown ending; write the matrix as one of: {', '.join(known)}.",
    )
    try:
        if file.suffix == ".npy":
            matrix = np.load(file, allow_pickle=False)
        else:
            matrix = np.loadtxt(file, delimiter=_DELIMITERS[file.suffix], ndmin=2)
    except (OSError, ValueError) as error:
        require(False, f"Mixing: cannot read a matrix of numbers from {path!r}: {error}")
    return MixingMatrix.of(matrix, stochastic=stochastic)


def _nearest_square(num_nodes: int) -> tuple[int, int]:
    rows = next(r for r in range(int(num_nodes**0.5), 0, -1) if num_nodes % r == 0)
    return rows, num_nodes // rows


def _counted(num_nodes: int) -> int:
    """Return a number of nodes if there can be so many; networkx would say it in its own words."""
    require(num_nodes >= 1, f"Mixing: num_nodes={num_nodes} must be at least 1.")
    return num_nodes


def _networkx() -> Any:
    """Return networkx, which is slow to import: only those who mix on a graph wait for it."""
    import networkx  # noqa: PLC0415

    return networkx
