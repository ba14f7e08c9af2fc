"""The collaborative rule against dense recursions and event-by-event arithmetic."""

from functools import partial

import networkx as nx
import numpy as np
import pytest
import torch

from fedagent.errors import ConfigurationError
from fedagent.mixing import (
    Mixing,
    MixingMatrix,
    complete,
    erdos_renyi,
    grouped,
    metropolis,
    pair,
    ring,
    star,
)
from fedagent.rules import ASGD, FedBuff
from fedagent.rules.staleness import constant, harmonic, polynomial
from tests.mixing.sweeps import arrive, flat_model, sweep, synchronous, update

P = 5
OPTIMA = np.random.default_rng(0).normal(size=(12, P))
half = partial(harmonic, beta=1.0)  # s(1) = 1/2, s(3) = 1/4: exact in binary


def descend(node, theta):
    """One step of 0.3 on |theta - optimum|^2 / 2."""
    return 0.3 * (OPTIMA[node] - theta)


@pytest.mark.parametrize("consensus", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    "mixing",
    [
        complete(4),
        ring(7),
        star(5),
        erdos_renyi(9, 0.6, seed=2),
        grouped([0, 1, 0, 1]),
        pair(0.2, 0.7),
    ],
    ids=["complete", "ring", "star", "erdos-renyi", "grouped", "asymmetric"],
)
def test_a_sweep_is_the_dense_product(mixing, consensus):
    """theta + C' Delta, and with consensus gamma also gamma (C' - I) theta."""
    rule, model = synchronous(mixing, consensus=consensus), flat_model(P)
    c, theta = mixing.dense(), np.zeros((mixing.num_nodes, P))
    for _ in range(6):
        deltas = np.stack([descend(k, theta[k]) for k in range(len(theta))])
        theta = theta + c.T @ deltas + consensus * (c.T - np.eye(len(c))) @ theta
        np.testing.assert_allclose(sweep(rule, model, descend), theta, atol=1e-12)
        np.testing.assert_allclose(model.vector.numpy(), theta.mean(0), atol=1e-12)


def test_only_a_sweep_of_no_size_needs_a_clock():
    assert Mixing(ring(3), buffer_size=None).needs_clock
    assert not Mixing(ring(3), buffer_size=3).needs_clock


def test_raw_weights_move_a_node_by_what_the_other_sends_only():
    rule = Mixing(pair(2.0, 0.5, stochastic=False), buffer_size=2)
    model = flat_model(2)
    arrive(rule, model, update(0, [1.0, 0.0], [0, 0]))
    arrive(rule, model, update(1, [0.0, 1.0], [0, 0]))
    assert rule.models.tolist() == [[0.0, 0.5], [2.0, 0.0]]


def test_arrivals_are_weighed_by_how_often_the_receiver_changed():
    """Two nodes, s(tau) = 1 / (1 + tau), every weight 1/2, worked out by hand."""
    rule, model = Mixing(pair(0.5, 0.5), half), flat_model(1)
    arrive(rule, model, update(0, [4.0], [0]))  # tau_01 = 0: both take half of it
    assert rule.models[:, 0].tolist() == [2.0, 2.0]
    arrive(rule, model, update(0, [4.0], [0], staleness=1))  # node 1 changed once since: weight 1/4
    assert rule.models[:, 0].tolist() == [4.0, 3.0]
    # Node 1 has a remainder of 1/4 from that, so its own update counts 3/4. Node 0 changed twice
    # since version 0: it takes 1/2 * 1/3, and keeps 1/3 for its own next update.
    arrive(rule, model, update(1, [6.0], [0], staleness=2))
    assert rule.models[:, 0].tolist() == pytest.approx([5.0, 7.5])
    # Fresh: node 1 takes half again, and no longer owes itself anything.
    arrive(rule, model, update(0, [6.0], [5.0]))
    assert rule.models[:, 0].tolist() == pytest.approx([5.0 + 6.0 * (0.5 + 1 / 3), 10.5])
    arrive(rule, model, update(1, [2.0], [10.5]))
    assert rule.models[1].item() == pytest.approx(11.5)


def test_only_changes_of_the_receiver_count():
    """On a ring, what far-away nodes do does not make an update older."""
    rule, model = Mixing(ring(7), half), flat_model(1)
    for _ in range(4):
        arrive(rule, model, update(3, [3.0], [0]))  # moves nodes 2, 3 and 4
    arrive(rule, model, update(0, [3.0], [0], staleness=4))
    assert rule.models[1].item() == pytest.approx(1.0)  # c = 1/3, nothing happened to node 1


def test_models_are_mixed_asynchronously():
    """gamma = 1: theta_k <- (1 - w) theta_k + w y_i, and the sender keeps w_ii of its own step."""
    rule, model = Mixing(pair(0.5, 0.25), constant, consensus=1.0), flat_model(1)
    arrive(rule, model, update(0, [8.0], [0.0]))
    assert rule.models[:, 0].tolist() == [6.0, 4.0]
    arrive(rule, model, update(1, [2.0], [4.0]))  # y_1 = 6: node 0 mixes, node 1 moves by c_11 2
    assert rule.models[:, 0].tolist() == [6.0, 5.0]
    assert model.vector.item() == pytest.approx(5.5)


def test_no_remainder_piles_up_behind_a_slow_node():
    rule, model = Mixing(complete(2), half), flat_model(1)
    for _ in range(50):
        arrive(rule, model, update(0, [0.0], [0], staleness=model.version))
    arrive(rule, model, update(1, [1.0], [0], staleness=model.version))
    assert rule.models[1].item() < 1.0  # c_11 + remainder <= 1, however often node 0 came


def test_what_staleness_takes_stays_with_the_receiver_in_a_sweep():
    rule, model = Mixing(complete(3), polynomial, buffer_size=3), flat_model(1)
    for _ in range(2):
        for node in range(3):  # everybody always answers the first job: tau = 0, then 1
            arrive(rule, model, update(node, [1.0], [0], staleness=model.version))
        expected = model.version
        # Equal updates: weights that sum to one move every model by 1, whatever s(tau) is.
        assert rule.models[:, 0].tolist() == pytest.approx([expected] * 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_complete_mixing_is_the_averaged_model_of_the_matching_rule(dtype):
    """Synchronously FedBuff over all nodes, asynchronously ASGD with 1/K."""
    rng, num_nodes = np.random.default_rng(1), 8
    arrivals = rng.integers(num_nodes, size=60)
    deltas = rng.normal(size=(60, P))
    for rule, reference in (
        (Mixing(complete(8), constant, 8), FedBuff(8, staleness=constant, weighted=False)),
        (Mixing(complete(8), constant), ASGD(1 / num_nodes)),
    ):
        model, other = flat_model(P, dtype), flat_model(P, dtype)
        for node, delta in zip(arrivals, deltas, strict=True):
            arriving = [
                update(node, delta, np.zeros(P), dtype=model.vector.dtype) for _ in range(2)
            ]
            assert arrive(rule, model, arriving[0]) == reference.receive(other, arriving[1])
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        torch.testing.assert_close(model.vector, other.vector, atol=tolerance, rtol=0)
        for theta in rule.models:
            torch.testing.assert_close(theta, other.vector, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    "graph",
    [nx.cycle_graph(8), nx.grid_2d_graph(3, 4, periodic=True), nx.star_graph(7)],
    ids=["ring", "torus", "star"],
)
def test_consensus_distance_falls_with_the_second_eigenvalue(graph):
    mixing = metropolis(nx.convert_node_labels_to_integers(graph))
    rule, model = synchronous(mixing, consensus=1.0), flat_model(P)
    sweep(rule, model, lambda node, theta: OPTIMA[node])  # pushes the models apart
    distances = []
    for _ in range(40):
        sweep(rule, model, lambda node, theta: np.zeros(P))
        distances.append(rule.metrics()["consensus-distance"])
    second = np.sort(np.abs(np.linalg.eigvals(mixing.dense())))[-2]
    assert distances[-1] / distances[-2] == pytest.approx(second, rel=1e-3)


def test_updates_alone_bring_nobody_together():
    rule, model = synchronous(ring(5)), flat_model(P)
    sweep(rule, model, lambda node, theta: OPTIMA[node])
    apart = rule.metrics()["consensus-distance"]
    sweep(rule, model, lambda node, theta: np.zeros(P))
    assert rule.metrics()["consensus-distance"] == pytest.approx(apart)


def test_consensus_distance_is_the_root_of_the_mean_square():
    rule, model = Mixing(grouped([0, 1])), flat_model(2)
    assert rule.metrics() == {}
    arrive(rule, model, update(0, [6.0, 8.0], [0, 0]))
    assert rule.metrics() == {"consensus-distance": pytest.approx(5.0)}


def test_nodes_that_name_no_partition_take_places_as_they_come():
    rule, model = Mixing(ring(3)), flat_model(1)
    for node in (7, 5):
        arrive(rule, model, update(node, [0.0], [0], metrics={}))
    assert rule.model_for(1007).data_ptr() == rule.models[0].data_ptr()
    assert rule.model_for(1005).data_ptr() == rule.models[1].data_ptr()


def test_places_that_were_taken_are_kept_in_a_resumed_run():
    rule, resumed, model = Mixing(ring(3)), Mixing(ring(3)), flat_model(1)
    for node in (7, 5):
        arrive(rule, model, update(node, [float(node)], [0], metrics={}))
    resumed.load_state_dict(rule.state_dict())
    for node in (5, 7):
        assert torch.equal(resumed.model_for(1000 + node), rule.model_for(1000 + node))
    refused = [
        resumed.rejection(update(n, [0.0], [0], metrics={})) is not None for n in (5, 7, 8, 9)
    ]
    assert refused == [False, False, False, True], "one place was left"


@pytest.mark.parametrize("named", [3, -1, 1.0, "0", [0]])
def test_a_node_without_a_place_is_refused(named):
    rule = Mixing(ring(3))
    rejection = rule.rejection(update(0, [0.0], [0], metrics={"partition-id": named}))
    assert rejection.reason == "no-place-in-mixing"
    assert rejection.blames_node
    assert "partition-id" in rejection.detail


def test_a_place_belongs_to_who_named_it_first():
    rule, model = Mixing(ring(3)), flat_model(1)
    arrive(rule, model, update(0, [5.0], [0], metrics={"partition-id": 1}))
    thief = update(2, [9.0], [0], metrics={"partition-id": 1})
    rejection = rule.rejection(thief)
    assert rejection.reason == "place-of-another"
    assert rejection.blames_node
    assert rule.model_for(thief.node_id) is None  # the published mean, not node 0's own
    resumed = Mixing(ring(3))
    resumed.load_state_dict(rule.state_dict())
    assert resumed.rejection(thief).reason == "place-of-another"
    liar = update(0, [1.0], [0], metrics={"partition-id": 2})
    assert rule.rejection(liar) is None  # what it says later does not matter
    arrive(rule, model, liar)
    assert rule.rejection(update(2, [1.0], [0], metrics={"partition-id": 2})) is None


def test_one_node_too_many_is_refused():
    rule = Mixing(pair())
    refused = [rule.rejection(update(n, [0.0], [0], metrics={})) is not None for n in range(3)]
    assert refused == [False, False, True]


@pytest.mark.parametrize("consensus", [0.0, 0.5])
@pytest.mark.parametrize("buffer_size", [1, 3])
@pytest.mark.parametrize("stop", [0, 7, 20])
def test_a_resumed_run_goes_on_as_if_nothing_had_happened(stop, buffer_size, consensus):
    rng = np.random.default_rng(3)
    nodes, deltas = rng.integers(5, size=40), rng.normal(size=(40, P))
    ages = rng.integers(6, size=40)

    def build():
        return Mixing(ring(5), polynomial, buffer_size, consensus)

    def go_on(rule, model, steps):
        for step in steps:
            base = np.zeros(P) if rule.models is None else rule.models[nodes[step]].numpy().copy()
            tau = min(int(ages[step]), model.version)
            arrive(rule, model, update(nodes[step], deltas[step], base, tau))

    rule, model = build(), flat_model(P)
    go_on(rule, model, range(stop))
    resumed, other = build(), flat_model(P)
    resumed.load_state_dict(rule.state_dict())
    other.load_state_dict(model.state_dict())
    assert resumed.pending == rule.pending
    go_on(rule, model, range(stop, 40))
    go_on(resumed, other, range(stop, 40))
    assert torch.equal(resumed.models, rule.models)
    assert torch.equal(other.vector, model.vector)


def test_settings_that_cannot_work_are_refused():
    for settings, says in (
        ({"buffer_size": 0}, "buffer_size=0"),
        ({"consensus": 1.5}, "consensus=1.5"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            Mixing(ring(4), **settings)
    with pytest.raises(ConfigurationError, match="raw weights"):
        Mixing(MixingMatrix.of([[0, 1], [2, 0]], stochastic=False), consensus=0.5)
