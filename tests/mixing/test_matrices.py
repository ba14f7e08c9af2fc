import runpy
import sys
import warnings

import networkx as nx
import numpy as np
import pytest

from fedagent.errors import ConfigurationError
from fedagent.mixing import (
    MixingMatrix,
    complete,
    erdos_renyi,
    from_file,
    grouped,
    metropolis,
    pair,
    ring,
    star,
    topologies,
    torus,
)
from fedagent.mixing import matrix as matrices

SHIPPED = {
    "complete": lambda: complete(6),
    "ring": lambda: ring(6),
    "torus": lambda: torus(3, 4),
    "torus-of-12": lambda: torus(12),
    "star": lambda: star(6),
    "erdos-renyi": lambda: erdos_renyi(12, 0.5, seed=1),
    "grouped": lambda: grouped([0, 1, 0, 1, 2, 2, 2]),
    "pair": lambda: pair(0.2, 0.7),
    "one node": lambda: complete(1),
}


def laplacian_metropolis(graph: nx.Graph) -> np.ndarray:
    """Return the same weights by definition, entry by entry."""
    size = graph.number_of_nodes()
    matrix = np.zeros((size, size))
    for i in range(size):
        for k in range(size):
            if i != k and graph.has_edge(i, k):
                matrix[i, k] = 1 / (1 + max(graph.degree(i), graph.degree(k)))
    return matrix + np.diag(1 - matrix.sum(0))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_every_node_receives_sums_to_one(name):
    matrix = SHIPPED[name]().dense()
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(0), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("graph", "build"),
    [
        (nx.complete_graph(5), lambda: complete(5)),
        (nx.cycle_graph(7), lambda: ring(7)),
        (nx.star_graph(5), lambda: star(6)),
        (nx.barbell_graph(4, 2), lambda: metropolis(graph=nx.barbell_graph(4, 2))),
    ],
)
def test_weights_are_those_of_metropolis(graph, build):
    np.testing.assert_allclose(build().dense(), laplacian_metropolis(graph), atol=1e-12)


def test_named_topologies_have_the_weights_their_names_promise():
    np.testing.assert_allclose(complete(4).dense(), 0.25)
    assert ring(6).dense()[0].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0, 0, 1 / 3])
    assert sorted(torus(4, 5).dense()[0][torus(4, 5).dense()[0] > 0]) == pytest.approx([0.2] * 5)
    assert star(5).dense()[0].tolist() == pytest.approx([0.2] * 5)
    assert star(5).dense()[3].tolist() == pytest.approx([0.2, 0, 0, 0.8, 0])
    assert grouped(2, 4).dense()[0].tolist() == [0.5, 0, 0.5, 0]


@pytest.mark.parametrize(
    ("num_nodes", "rows", "columns"), [(1, 1, 1), (7, 1, 7), (9, 3, 3), (10, 2, 5), (18, 3, 6)]
)
def test_a_torus_of_so_many_nodes_is_the_nearest_to_a_square(num_nodes, rows, columns):
    assert torus(num_nodes).dense().tolist() == torus(rows, columns).dense().tolist()


def test_two_nodes_keep_what_they_do_not_hear():
    assert pair(0.2, 0.7).dense().tolist() == pytest.approx(np.array([[0.3, 0.2], [0.7, 0.8]]))
    assert pair(2.0, 0.7, stochastic=False).dense().tolist() == [[0, 2.0], [0.7, 0]]


def test_neighbours_are_those_that_receive():
    matrix = MixingMatrix.of(
        [[0.5, 0.2, 0.0], [0.5, 0.8, 0.3], [0.0, 0.0, 0.7]], is_connected=False
    )
    receivers, weights = matrix.neighbours(1)
    assert (receivers.tolist(), weights.tolist()) == ([0, 2], [0.5, 0.3])
    assert matrix.neighbours(2)[0].tolist() == []
    assert matrix.own.tolist() == [0.5, 0.8, 0.7]


def test_a_weight_of_zero_is_none():
    matrix = MixingMatrix(2, [0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1], is_connected=False)
    assert [matrix.neighbours(node)[0].tolist() for node in (0, 1)] == [[], []]
    assert matrix.dense().tolist() == [[1, 0], [0, 1]]


def test_a_ring_of_many_nodes_costs_no_square_of_them():
    matrix = ring(200_000)  # its dense form would take 320 GB
    assert matrix.neighbours(0)[0].tolist() == [1, 199_999]


@pytest.mark.parametrize("ending", [".npy", ".csv", ".txt"])
def test_a_matrix_is_read_from_a_file(tmp_path, ending):
    matrix, path = ring(4).dense(), tmp_path / f"weights{ending}"
    if ending == ".npy":
        np.save(path, matrix.astype(np.float32))
    else:
        np.savetxt(path, matrix, delimiter="," if ending == ".csv" else " ")
    np.testing.assert_allclose(from_file(str(path)).dense(), matrix, atol=1e-7)


def test_a_file_that_could_run_code_is_not_read(tmp_path):
    np.save(tmp_path / "pickled.npy", np.array([[0.5, 0.5], [0.5, 0.5]], object))
    with pytest.raises(ConfigurationError, match="cannot read"):
        from_file(str(tmp_path / "pickled.npy"))


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ([[0.5, 0.5]], "must be square"),
        ([0.5, 0.5], "must be square"),
        (np.full((2, 2, 2), 0.5), "must be square"),
        ([[0.5, 0.0], [0.5, 0.9]], "node 1 receives sum to 0.9, not 1.*column 1"),
        ([[1.5, 0.0], [-0.5, 1.0]], "node 0 would receive from node 1 with weight -0.5"),
        ([[np.nan, 0.0], [0.5, 1.0]], "node 0 would receive from node 0 with weight nan"),
        ([[np.inf, 0.0], [0.5, 1.0]], "finite"),
    ],
)
def test_weights_that_cannot_be_are_refused_by_name(matrix, says):
    with pytest.raises(ConfigurationError, match=says):
        MixingMatrix.of(matrix)


def test_raw_weights_need_to_be_asked_for():
    raw = [[0.0, 3.0], [0.5, 0.0]]
    with pytest.raises(ConfigurationError, match="stochastic=false"):
        MixingMatrix.of(raw)
    assert MixingMatrix.of(raw, stochastic=False).dense().tolist() == raw


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: MixingMatrix(2, [0, 5], [0, 1], [1.0, 1.0]), "sender \\[5\\] does not exist"),
        (lambda: MixingMatrix(2, [0, 0], [1, 1], [0.5, 0.5]), "c\\[0, 1\\] is given twice"),
        (lambda: MixingMatrix(4, [3, 3], [2, 2], [0.5, 0.5]), "c\\[3, 2\\] is given twice"),
        (lambda: MixingMatrix(2, [0, 0], [1, 1], [0.5]), "do not match"),
        (lambda: MixingMatrix(0, [], [], []), "at least 1"),
        (lambda: metropolis(nx.DiGraph([(0, 1)])), "undirected"),
        (lambda: metropolis(nx.Graph([("a", "b")])), "convert_node_labels_to_integers"),
        (lambda: erdos_renyi(4, 1.5), "probability=1.5"),
        (lambda: grouped(3), "need num_nodes"),
        (lambda: grouped(5, 4), "at least that many"),
        (lambda: torus(0), "too small"),
        (lambda: from_file("weights.pkl"), "unknown ending"),
        (lambda: from_file("missing.npy"), "cannot read"),
    ],
)
def test_mistakes_are_explained(build, says):
    with pytest.raises(ConfigurationError, match=says):
        build()


def test_a_warning_says_who_is_cut_off():
    with pytest.warns(UserWarning, match=r"2 parts.*\[2\]"):
        metropolis(nx.Graph([(0, 1), (2, 2)]))
    with pytest.warns(UserWarning, match="both ways"):  # node 0 hears nobody
        MixingMatrix.of([[1.0, 0.5], [0.0, 0.5]])


def test_groups_are_apart_on_purpose_and_connected_graphs_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for build in SHIPPED.values():
            build()


def test_only_who_mixes_on_a_graph_waits_for_networkx(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    fresh = runpy.run_path(topologies.__file__)
    assert fresh["grouped"]([0, 1, 0]).num_nodes == 3
    with pytest.raises(ImportError, match="networkx"):
        fresh["ring"](3)


def check_a_column_sums_to_one_to_the_precision_of_float32() -> None:
    """What float32 files bring is taken; what a typing error makes is refused, on either side."""
    thirds = np.full((3, 3), np.float32(1) / np.float32(3), np.float64)
    MixingMatrix.of(thirds)
    MixingMatrix.of(np.full((1000, 1000), 0.001, np.float32))
    for off in (2e-6, -2e-6, 1e-5, -1e-4, 1e-3, -1e-2):
        wrong = thirds.copy()
        wrong[0, 1] += off
        with pytest.raises(ConfigurationError, match=r"node 1 receives sum to"):
            MixingMatrix.of(wrong)


def test_a_column_sums_to_one_to_the_precision_of_float32():
    check_a_column_sums_to_one_to_the_precision_of_float32()


@pytest.mark.parametrize("tolerance", [0.0, 1e-9, 5e-6, 1e-5, 1e-4, 1e-3, 1e-2])
def test_another_tolerance_is_noticed(tolerance, monkeypatch):
    monkeypatch.setattr(matrices, "_TOLERANCE", tolerance)
    with pytest.raises((ConfigurationError, pytest.fail.Exception)):
        check_a_column_sums_to_one_to_the_precision_of_float32()
