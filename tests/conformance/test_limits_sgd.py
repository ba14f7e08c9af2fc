"""Where the SGD family must coincide with something simpler, and what each rule is for."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import (
    ASGD,
    DCASGD,
    DelayedNesterov,
    FedBuff,
    FedNova,
    HeLoCo,
    Malenia,
    Rennala,
    Rescaled,
    Ringleader,
    Ringmaster,
    RingmasterLMO,
    Rule,
)
from fedagent.rules.staleness import constant, delay_adaptive, polynomial, threshold
from fedagent.update import Update
from tests.conformance.replay import Event, RealRun, Work, fleet, replay

INITIAL = (0.5, -1.0, 2.0)
DELTAS = np.random.default_rng(11).normal(size=(24, 3))
ORDER = [0, 1, 2, 0, 1, 3, 0, 2, 1, 0, 3, 3, 0, 1, 2, 2, 0, 1, 3, 0, 0, 1, 2, 3]
HISTORY = [Work(node, tuple(delta)) for node, delta in zip(ORDER, DELTAS, strict=True)]


def trace(rule: Rule, history: Sequence[Work] = HISTORY) -> list[Event]:
    return fleet(RealRun(rule, INITIAL), history)


def assert_same(actual: Rule, expected: Rule, history: Sequence[Work] = HISTORY) -> None:
    ours, theirs = trace(actual, history), trace(expected, history)
    assert [e.published for e in ours] == [e.published for e in theirs]
    np.testing.assert_allclose(
        [e.parameters for e in ours], [e.parameters for e in theirs], rtol=1e-12, atol=1e-12
    )


def moved(events: Sequence[Event]) -> np.ndarray:
    return events[-1].parameters - np.array(INITIAL)


# --- the same as something simpler ------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Ringmaster(max_staleness=None, server_learning_rate=0.3),
        Ringmaster(max_staleness=1000, server_learning_rate=0.3),
        FedBuff(1, 0.3, constant),
        FedNova(1, 0.3, constant),
        DCASGD(0.0, adaptive=False, server_learning_rate=0.3),
        DCASGD(0.0, adaptive=True, server_learning_rate=0.3),
        DelayedNesterov(5, momentum=0.0, server_learning_rate=1.5),
        DelayedNesterov(1, momentum=0.0, server_learning_rate=0.3),
        HeLoCo(0.3, momentum=0.0, keep_cosine=-1.0),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_rule_at_its_limit_is_asynchronous_sgd(rule):
    assert_same(rule, ASGD(0.3))


def test_asgd_with_a_staleness_weight_is_fedbuff_with_a_buffer_of_one():
    assert_same(ASGD(0.3, polynomial), FedBuff(1, 0.3, polynomial))


def test_single_node_is_never_stale_and_every_rule_adds_its_deltas():
    history = [Work(0, tuple(delta)) for delta in DELTAS]

    for rule in (
        Ringmaster(1, 0.3),
        Rennala(1, 0.3),
        Malenia(1, server_learning_rate=0.3),
        Ringleader(1, 0.3),
        DCASGD(2.0, server_learning_rate=0.3),
        Rescaled(ASGD(0.3)),
    ):
        assert_same(rule, ASGD(0.3), history)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("local_steps", [None, 1, 7])
def test_fednova_with_equal_local_steps_is_fedbuff(local_steps, weighted):
    history = [Work(w.node, w.delta, 1 + i, 0, local_steps) for i, w in enumerate(HISTORY)]

    assert_same(
        FedNova(3, 0.7, polynomial, weighted),
        FedBuff(3, 0.7, polynomial, "buffer", weighted),
        history,
    )


def rounds(count: int, nodes: int) -> list[tuple[int, Work]]:
    """Synchronous rounds: in each, every node sends one update computed at the round's version."""
    deltas = iter(DELTAS)
    return [(r, Work(node, tuple(next(deltas)))) for r in range(count) for node in range(nodes)]


@pytest.mark.parametrize(
    "rule", [Rennala(4), Malenia(4), Malenia(4, batch_size=4)], ids=["rennala", "malenia", "S=n"]
)
def test_batch_of_the_whole_cohort_without_delay_is_the_mean_of_the_client_models(rule):
    events = replay(RealRun(rule, INITIAL), rounds(5, nodes=4))

    x = np.array(INITIAL)
    for r in range(5):
        x = np.mean(x + DELTAS[4 * r : 4 * r + 4], axis=0)
        np.testing.assert_allclose(events[4 * r + 3].parameters, x, rtol=1e-13, atol=1e-13)
    assert [e.published for e in events] == [False, False, False, True] * 5


def test_malenia_with_equal_counts_is_rennala():
    order = [0, 1, 2, 2, 1, 0]  # two updates of each of three nodes, all computed at version 0
    history = [(0, Work(node, tuple(DELTAS[i]))) for i, node in enumerate(order)]

    malenia = replay(RealRun(Malenia(3, batch_size=6), INITIAL), history)
    rennala = replay(RealRun(Rennala(6), INITIAL), history)

    assert [e.published for e in malenia] == [e.published for e in rennala] == [False] * 5 + [True]
    np.testing.assert_allclose(moved(malenia), moved(rennala), rtol=1e-13)


def test_delayed_nesterov_moves_by_the_mean_and_the_momentum_once_per_period():
    events = trace(DelayedNesterov(4, momentum=0.9, server_learning_rate=0.5))

    x, m = np.array(INITIAL), np.zeros(3)
    for k in range(6):
        mean = DELTAS[4 * k : 4 * k + 4].mean(axis=0)
        m = 0.9 * m + mean
        x = x + 0.5 * (mean + 0.9 * m)
        np.testing.assert_allclose(events[4 * k + 3].parameters, x, rtol=1e-12)


# --- what each rule is for --------------------------------------------------------------------


def one_coordinate(arrivals: Sequence[tuple[int, Work]], rule: Rule) -> list[float]:
    return [float(e.parameters[0]) for e in replay(RealRun(rule, [0.0]), arrivals)]


def test_delay_adaptive_step_is_full_up_to_the_concurrency_and_falls_as_its_ratio_beyond():
    arrivals = [(0, Work(node, (1.0,))) for node in range(9)]

    x = one_coordinate(arrivals, ASGD(1.0, partial(delay_adaptive, concurrency=4)))

    np.testing.assert_allclose(np.diff(x, prepend=0), [1, 1, 1, 1, 1, 4 / 5, 4 / 6, 4 / 7, 4 / 8])


def test_update_that_is_as_stale_as_ringmaster_s_bound_is_refused_and_carries_nothing():
    run = RealRun(Ringmaster(2), [0.0])
    late = [(0, Work(node, (1.0,), counter=node)) for node in range(5)]

    events = replay(run, late)

    assert [e.tau for e in events] == [0, 1, 2, 2, 2]
    assert [e.accepted for e in events] == [True, True, False, False, False]
    assert [e.counter for e in events] == [0, 1, 1, 1, 1]


def test_threshold_weight_receives_what_ringmaster_refuses():
    events = trace(ASGD(1.0, partial(threshold, limit=1)))

    assert all(event.accepted and event.published for event in events)
    assert {event.weight for event in events} == {0.0, 1.0}


def test_fast_node_fills_rennala_s_batch_but_weighs_no_more_than_others_in_malenia_s():
    fast, slow = Work(0, (1.0,)), Work(1, (-1.0,))
    arrivals = [(0, fast), (0, fast), (0, fast), (0, slow)]

    assert one_coordinate(arrivals, Rennala(4))[-1] == 0.5
    assert one_coordinate(arrivals, Malenia(2))[-1] == 0.0


def test_malenia_waits_until_the_harmonic_mean_of_the_counts_is_large_enough():
    # S / n = 3/2. The harmonic mean of (3, 1) is 2 / (1/3 + 1) = 3/2.
    arrivals = [(0, Work(node, (1.0,))) for node in (0, 1, 0, 0)]

    events = replay(RealRun(Malenia(2, batch_size=3), [0.0]), arrivals)

    assert [e.published for e in events] == [False, False, False, True]


def test_malenia_needs_every_node_however_many_updates_the_others_send():
    arrivals = [(0, Work(node, (1.0,))) for node in (0, 1, 0, 1, 0, 1, 0, 1)]

    events = replay(RealRun(Malenia(3), [0.0]), arrivals)

    assert not any(event.published for event in events)
    assert events[-1].pending == 8


# Ringleader by hand: three nodes, eta = 1, one parameter. Rows are written (G_i / b_i).
#
#   node delta   phase 1 rows                                            x
#    0    +3     (3)                                                     0
#    0    +5     (4)          b_0 = 2                                    0
#    1    +2     (4, 2)                                                  0
#    2    -3     (4, 2, -3)   full: node 2 steps, x += (4+2-3)/3 = 1     1
#   phase 2
#    2    +9     next round's row                                        1
#    0    +1     row 0 is (3+5+1)/3 = 3: x += (3+2-3)/3 = 2/3            5/3
#    0    +6     next round's row                                        5/3
#    1    +4     row 1 is (2+4)/2 = 3: x += (3+3-3)/3 = 1                8/3   round over
#   phase 1, rows (6, -, 9)
#    2    +3     (6, -, 6)                                               8/3
#    1   -12     (6, -12, 6)  full: node 1 steps, x += 0                 8/3
RINGLEADER_BY_HAND = [
    (0, 3.0, 0, 1),
    (0, 5.0, 0, 2),
    (1, 2.0, 0, 3),
    (2, -3.0, 1, 0),
    (2, 9.0, 1, 1),
    (0, 1.0, 5 / 3, 1),
    (0, 6.0, 5 / 3, 2),
    (1, 4.0, 8 / 3, 2),
    (2, 3.0, 8 / 3, 3),
    (1, -12.0, 8 / 3, 0),
]


def test_ringleader_trace_worked_by_hand():
    history = [Work(node, (delta,)) for node, delta, *_ in RINGLEADER_BY_HAND]

    events = fleet(RealRun(Ringleader(3), [0.0]), history)

    np.testing.assert_allclose(
        [float(event.parameters[0]) for event in events],
        [x for *_, x, _ in RINGLEADER_BY_HAND],
        rtol=1e-14,
    )
    assert [event.pending for event in events] == [pending for *_, pending in RINGLEADER_BY_HAND]
    assert [i for i, event in enumerate(events) if event.published] == [3, 5, 7, 9]


def test_ringleader_steps_once_per_node_and_round_and_uses_nothing_older_than_2n_minus_2():
    n, generator = 4, np.random.default_rng(5)
    nodes = generator.choice(n, size=600, p=[0.7, 0.2, 0.07, 0.03])
    events = trace(Ringleader(n, 0.01), [Work(int(node), (1.0, 0.0, 0.0)) for node in nodes])

    stepping = [int(node) for node, event in zip(nodes, events, strict=True) if event.published]
    full = len(stepping) // n * n
    assert full >= 3 * n
    assert all(set(stepping[i : i + n]) == set(range(n)) for i in range(0, full, n))
    assert max(event.tau for event in events) <= 2 * n - 2


def test_heloco_turns_an_update_halfway_to_the_momentum_and_keeps_its_length():
    # The first update makes m = (0.5, 0), the second is at a right angle: g = 1.5 / (1.5 + 3/2).
    run = RealRun(HeLoCo(1.0, momentum=0.5), [0.0, 0.0])

    events = replay(run, [(0, Work(0, (1.0, 0.0))), (1, Work(0, (0.0, 1.5)))])

    turned = 1.5 * np.sqrt(0.5) * np.ones(2)
    m = 0.5 * np.array([0.5, 0.0]) + 0.5 * turned
    x = np.array([1.25, 0.0]) + turned + 0.5 * m
    np.testing.assert_allclose(events[0].parameters, [1.5, 0.0])  # x = 1.25, and ahead of it
    np.testing.assert_allclose(events[1].parameters, x + 0.5 * m)


def test_heloco_takes_away_from_what_points_against_the_momentum_and_adds_nothing_new():
    run = RealRun(HeLoCo(1.0, momentum=0.5), [0.0, 0.0])

    events = replay(run, [(0, Work(0, (1.0, 0.0))), (1, Work(0, (-1.5, 0.0)))])

    left = -1.5 + 0.5 * 0.5 * 1.5  # c = -1, g = 1/2: a quarter less
    m = 0.5 * 0.5 + 0.5 * left
    np.testing.assert_allclose(events[1].parameters, [1.25 + left + m, 0.0])


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (4, 2, 3)])
def test_ringmaster_lmo_moves_a_matrix_about_equally_in_all_its_directions(shape):
    before = {"w": np.zeros(shape), "b": np.zeros(4)}
    model = FlatModel(ModelSpec.of(before), before)
    delta = {"w": np.random.default_rng(3).normal(size=shape), "b": np.array([5.0, -1, 0, 1])}
    vector, _ = model.spec.flatten(delta)

    RingmasterLMO(server_learning_rate=2.0).receive(model, Update(0, vector, model.vector, 0))

    after = model.arrays()
    moved, u, v = (
        after["w"].reshape(shape[0], -1),
        *np.linalg.svd(delta["w"].reshape(shape[0], -1))[::2],
    )
    inside = u[:, : min(moved.shape)].T @ moved @ v[: min(moved.shape)].T
    off_diagonal = inside - np.diag(np.diag(inside))
    assert np.abs(off_diagonal).max() < 1e-9, "U and V are those of the momentum"
    assert np.all((np.diag(inside) > 1.2) & (np.diag(inside) < 2.5))
    np.testing.assert_allclose(after["b"], [1.0, -1.0, 0.0, 1.0])


def test_ringmaster_lmo_takes_the_same_step_however_large_the_update_is():
    small, large = ([Work(0, (k, -2 * k, 0.0))] for k in (1e-3, 1e3))

    np.testing.assert_allclose(
        moved(trace(RingmasterLMO(), small)), moved(trace(RingmasterLMO(), large))
    )


def test_rescaled_nodes_have_the_same_say_however_often_they_are_heard():
    # Node 0 is heard nine times as often as node 1, and pulls the other way.
    history = [Work(int(i % 10 == 9), (1.0 if i % 10 < 9 else -1.0,)) for i in range(2000)]

    biased = fleet(RealRun(ASGD(0.01), [0.0]), history)
    fair = fleet(RealRun(Rescaled(ASGD(0.01)), [0.0]), history)

    assert float(biased[-1].parameters[0]) == pytest.approx(16.0)
    assert abs(float(fair[-1].parameters[0])) < 0.1


def test_rescaled_nodes_that_are_heard_equally_often_weigh_one_at_the_end_of_every_round():
    history = [Work(node, (1.0,)) for _ in range(20) for node in range(4)]

    x = [float(e.parameters[0]) for e in fleet(RealRun(Rescaled(ASGD()), [0.0]), history)]

    steps = np.diff(x, prepend=0.0).reshape(20, 4)
    np.testing.assert_allclose(steps[:, 3], 1.0)
    np.testing.assert_allclose(steps[0], 1.0)
    assert np.abs(steps[-1] - 1.0).max() < 0.05


def test_dc_asgd_predicts_the_gradient_at_the_current_model():
    """Curvature 1 where the squared gradient is 1: the compensated step is the fresh gradient's."""
    run = RealRun(DCASGD(1.0, adaptive=False, server_learning_rate=1.0), [1.0])

    # f = x^2 / 2 has gradient x. At the base 1 it is 1; when it arrives x is 0.75.
    events = replay(run, [(0, Work(0, (-0.25,))), (0, Work(1, (-1.0,)))])

    assert float(events[0].parameters[0]) == 0.75
    assert float(events[1].parameters[0]) == 0.75 - 0.75


def test_adaptive_dc_asgd_is_the_same_in_other_units():
    """Half the local learning rate and twice the server's: the same gradients, the same run."""
    big = trace(DCASGD(0.5, server_learning_rate=0.1), scaled(100.0))
    small = trace(DCASGD(0.5, server_learning_rate=0.2), scaled(50.0))

    np.testing.assert_allclose(moved(big), moved(small), rtol=1e-6)


def scaled(factor: float) -> list[Work]:
    return [Work(w.node, tuple(factor * x for x in w.delta)) for w in HISTORY]


def test_fednova_does_not_let_a_node_with_more_steps_pull_the_model_its_way():
    # Each local step moves a node by +-1; node 0 takes 9 of them, node 1 one.
    arrivals = [(0, Work(0, (9.0,), local_steps=9)), (0, Work(1, (-1.0,), local_steps=1))]

    assert one_coordinate(arrivals, FedNova(2))[-1] == 0.0
    assert one_coordinate(arrivals, FedBuff(2))[-1] == 4.0


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: ASGD(server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: ASGD(staleness=partial(polynomial, a=-1.0)), "negative"),
        (lambda: ASGD(staleness=partial(delay_adaptive, concurrency=-2)), "negative"),
        (lambda: Ringmaster(max_staleness=0), "max_staleness=0"),
        (lambda: Ringmaster(server_learning_rate=-1.0), "server_learning_rate=-1.0"),
        (lambda: Rennala(buffer_size=0), "buffer_size=0"),
        (lambda: Rennala(server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: Malenia(num_nodes=0), "num_nodes=0"),
        (lambda: Malenia(3, batch_size=0), "batch_size=0"),
        (lambda: Malenia(3, server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: Ringleader(num_nodes=0), "num_nodes=0"),
        (lambda: Ringleader(3, server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: DelayedNesterov(period=0), "period=0"),
        (lambda: DelayedNesterov(momentum=1.0), "momentum=1.0"),
        (lambda: DelayedNesterov(server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: HeLoCo(server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: HeLoCo(momentum=1.0), "momentum=1.0"),
        (lambda: HeLoCo(keep_cosine=1.5), "keep_cosine=1.5"),
        (lambda: RingmasterLMO(max_staleness=0), "max_staleness=0"),
        (lambda: RingmasterLMO(server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: RingmasterLMO(momentum=1.0), "momentum=1.0"),
        (lambda: RingmasterLMO(shrink_after=0.0), "shrink_after=0.0"),
        (lambda: Rescaled(ASGD(), max_weight=0.9), "max_weight=0.9"),
        (lambda: DCASGD(lambda_=-1.0), "lambda_=-1.0"),
        (lambda: DCASGD(ema=1.0), "ema=1.0"),
        (lambda: DCASGD(server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: FedNova(buffer_size=0), "buffer_size=0"),
        (lambda: FedNova(server_learning_rate=0.0), "server_learning_rate=0.0"),
    ],
)
def test_setting_that_cannot_work_is_named(build, setting):
    with pytest.raises(ValueError, match=setting):
        build()
