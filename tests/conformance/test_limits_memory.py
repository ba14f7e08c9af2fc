"""Where the rules that remember must coincide with something simpler, and what each is for."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import ACE, AREA, CA2FL, FADAS, PORT, FedBuff, FedStaleWeight, Rule
from fedagent.rules.staleness import constant
from fedagent.rules.table import Table
from fedagent.update import Update
from tests.conformance.replay import Event, RealRun, Work, fleet, replay

INITIAL = (0.5, -1.0, 2.0)
DELTAS = np.random.default_rng(5).normal(size=(24, 3))
EXAMPLES = [10, 200, 3, 45, 1, 60] * 4
ORDER = [0, 1, 2, 0, 1, 3, 0, 2, 1, 0, 3, 3, 0, 1, 2, 2, 0, 1, 3, 0, 0, 1, 2, 3]
HISTORY = [
    Work(node, tuple(delta), n) for node, delta, n in zip(ORDER, DELTAS, EXAMPLES, strict=True)
]
ONE_EACH = [Work(node, tuple(DELTAS[node])) for node in range(24)]


def trace(rule: Rule, history: Sequence[Work] = HISTORY) -> list[Event]:
    return fleet(RealRun(rule, INITIAL), history)


def trace_without_delay(rule: Rule, buffer_size: int) -> list[Event]:
    return replay(RealRun(rule, INITIAL), [(i // buffer_size, w) for i, w in enumerate(HISTORY)])


def assert_same(ours: Sequence[Event], theirs: Sequence[Event], rtol: float = 1e-12) -> None:
    assert [e.published for e in ours] == [e.published for e in theirs]
    np.testing.assert_allclose(
        [e.parameters for e in ours], [e.parameters for e in theirs], rtol=rtol, atol=1e-12
    )


def steps(events: Sequence[Event]) -> np.ndarray:
    """What each published version added, (versions, 3)."""
    versions = [np.array(INITIAL), *(e.parameters for e in events if e.published)]
    return np.diff(versions, axis=0)


def fixed(order: Sequence[int]) -> list[Work]:
    """Nodes that always send the same update."""
    return [Work(node, tuple(DELTAS[node])) for node in order]


# --- CA2FL ------------------------------------------------------------------------------------


def test_ca2fl_without_history_is_fedbuff_whoever_is_in_the_buffer():
    mean = FedBuff(24, 0.7, constant, weighted=False)

    assert_same(trace(CA2FL(24, 0.7, num_nodes=4)), trace(mean))


def test_ca2fl_with_everybody_in_every_buffer_is_fedbuff():
    rounds = [Work(i % 4, tuple(delta)) for i, delta in enumerate(DELTAS)]

    ours, theirs = CA2FL(4, 0.7, num_nodes=4), FedBuff(4, 0.7, constant, weighted=False)

    assert_same(trace(ours, rounds), trace(theirs, rounds))


def test_ca2fl_counts_the_nodes_that_are_not_in_the_buffer():
    heard_once = fixed([0, 1]) + fixed([0, 0] * 3)

    ours = steps(trace(CA2FL(2, 1.0, num_nodes=2), heard_once))

    np.testing.assert_allclose(ours, [DELTAS[:2].mean(axis=0)] * 4, rtol=1e-12)


def test_ca2fl_keeps_no_update_twice_once_a_version_holds_it():
    rule = CA2FL(2, 1.0, num_nodes=3)
    run = RealRun(rule, INITIAL)

    waiting = []
    for work in fixed([0, 1, 2, 0]):
        fleet(run, [work])
        waiting.append(sorted(rule.state_dict()["fresh"]))

    assert waiting == [["0"], [], ["2"], []]


# --- ACE --------------------------------------------------------------------------------------


def test_ace_of_one_node_adds_every_delta():
    alone = [Work(0, tuple(delta)) for delta in DELTAS]

    assert_same(
        trace(ACE(num_nodes=1, server_learning_rate=0.3), alone),
        trace(FedBuff(1, 0.3, constant), alone),
    )


@pytest.mark.parametrize("max_age", [None, 100])
@pytest.mark.parametrize(
    "order",
    [[0, 1, 2, 3] * 4, [0, 1, 2, 3, *[0] * 12], [3, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1]],
    ids=["equal", "one-is-fast", "mixed"],
)
def test_ace_steps_along_the_mean_of_all_nodes_however_often_each_arrives(max_age, order):
    ours = steps(trace(ACE(4, 0.3, max_age), fixed(order)))

    np.testing.assert_allclose(
        ours[3:], [0.3 * DELTAS[:4].mean(axis=0)] * (len(order) - 3), rtol=1e-12
    )


def test_aced_that_never_drops_is_ace_over_the_nodes_heard():
    assert_same(trace(ACE(1, 0.3, max_age=10**9)), trace(ACE(1, 0.3)))


def test_aced_forgets_a_node_that_falls_silent():
    ours = steps(trace(ACE(2, 1.0, max_age=3), fixed([1, *[0] * 7])))

    both, only_0 = DELTAS[:2].mean(axis=0), DELTAS[0]
    np.testing.assert_allclose(ours[1:], [both] * 3 + [only_0] * 4, rtol=1e-12)


def test_aced_refuses_what_it_would_drop_at_once():
    run = RealRun(ACE(2, 1.0, max_age=1), INITIAL)

    events = replay(run, [(0, work) for work in ONE_EACH[:4]])

    assert [event.accepted for event in events] == [True, True, False, False]


def error_of(table: Table, num_nodes: int) -> float:
    """How far the running sum is from the sum."""
    total = torch.zeros(3)
    table.add_sum_to(total, alpha=1.0)
    exact = sum(table.get(node).double() for node in range(num_nodes))
    return float((total - exact).abs().max())


def test_running_sum_does_not_drift():
    random, table = np.random.default_rng(1), Table()

    for i in range(5000):
        table.put(i % 4, torch.from_numpy(random.normal(size=3).astype(np.float32)))

    assert error_of(table, 4) < 1e-5


def test_what_rounding_a_huge_update_left_in_the_running_sum_goes_away():
    table = Table()
    for node in (0, 1):
        table.put(node, torch.full((3,), 0.3))
    table.put(0, torch.full((3,), 1e8))
    table.put(0, torch.full((3,), 0.3))
    assert error_of(table, 2) > 0.1

    for _ in range(1100):
        table.put(1, torch.full((3,), 0.3))

    assert error_of(table, 2) < 1e-6


def test_a_resumed_running_sum_is_renewed_at_the_same_change():
    def renewed_after(table: Table) -> int:
        table._sum.fill_(99.0)
        changes = 0
        while error_of(table, 1) > 1.0:
            table.put(0, torch.ones(3))
            changes += 1
        return changes

    table, resumed = Table(), Table()
    for _ in range(300):
        table.put(0, torch.ones(3))
    resumed.load_state_dict(table.state_dict())
    assert renewed_after(resumed) == renewed_after(table) == 710


# --- AREA -------------------------------------------------------------------------------------


def test_area_is_the_mean_of_the_models_of_nodes_that_send_differences():
    rule, random = AREA(num_nodes=5, publish_every=3), np.random.default_rng(2)
    arrays = {"w": np.array(INITIAL)}
    model = FlatModel(ModelSpec.of(arrays), arrays)
    y = {node: np.array(INITIAL) for node in range(5)}
    versions = [model.vector.clone()]

    for node in random.integers(0, 4, size=60):  # node 4 is never heard
        base, is_first = versions[random.integers(len(versions))], node not in rule._num_applied
        new = random.normal(size=3)
        delta = new - (base.numpy() if is_first else y[node])
        y[node] = new
        if rule.receive(model, Update(int(node), torch.from_numpy(delta), base, staleness=0)):
            versions.append(model.vector.clone())
        np.testing.assert_allclose(model.vector, np.mean(list(y.values()), axis=0), atol=1e-13)

    assert len(versions) == 1 + 60 // 3


def test_area_takes_a_late_node_s_first_model_for_what_it_is():
    arrays = {"w": np.array([1.0])}
    model, base = FlatModel(ModelSpec.of(arrays), arrays), torch.tensor([50.0]).double()

    AREA(num_nodes=4).receive(model, Update(0, torch.tensor([7.0]).double(), base, staleness=0))

    assert float(model.vector) == (57 + 1 + 1 + 1) / 4


def test_area_tells_every_node_how_many_of_its_updates_were_applied():
    run = RealRun(AREA(num_nodes=4), INITIAL)

    fleet(run, fixed([0, 1, 0, 0]))

    assert [run.rule.job_config(node) for node in (0, 1, 2)] == [
        {"num-applied": n} for n in (3, 1, 0)
    ]


def test_other_rules_have_nothing_to_tell():
    assert FedBuff().job_config(0) == {}


# --- FADAS ------------------------------------------------------------------------------------


def test_fadas_without_memory_and_with_a_large_eps_is_fedbuff():
    ours = FADAS(3, 0.7e9, beta1=0.0, beta2=0.0, eps=1e9, max_staleness=1000)

    assert_same(trace(ours), trace(FedBuff(3, 0.7, constant, weighted=False)), rtol=1e-8)


def test_fadas_moves_every_parameter_by_about_the_learning_rate():
    ours = FADAS(1, 0.01, beta1=0.0, beta2=0.0, max_staleness=1000)

    first = steps(trace(ours))[0]

    np.testing.assert_allclose(first, 0.01 * np.sign(DELTAS[0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("eta", "tau", "expected"),
    [(0.7, 0, 0.7), (0.7, 1, 0.7), (0.7, 2, 0.5), (0.7, 10, 0.1), (1e-3, 10, 1e-3)],
)
def test_fadas_caps_the_learning_rate_of_a_late_buffer(eta, tau, expected):
    arrays = {"w": np.zeros(1)}
    model = FlatModel(ModelSpec.of(arrays), arrays)
    rule = FADAS(1, eta, beta1=0.0, beta2=0.0, eps=1e-12, max_staleness=1)
    delta = torch.ones(1, dtype=torch.float64)

    rule.receive(model, Update(0, delta, torch.zeros(1), staleness=tau))

    assert float(model.vector) == pytest.approx(expected)


def test_fadas_may_cap_every_buffer_that_is_late_at_all():
    arrays = {"w": np.zeros(1)}
    model = FlatModel(ModelSpec.of(arrays), arrays)
    rule = FADAS(1, 3.0, beta1=0.0, beta2=0.0, eps=1e-12, max_staleness=0)

    for tau, expected in [(0, 3.0), (1, 3.0 + 1.0), (2, 3.0 + 1.0 + 0.5)]:
        delta = torch.ones(1, dtype=torch.float64)
        rule.receive(model, Update(0, delta, torch.zeros(1), staleness=tau))
        assert float(model.vector) == pytest.approx(expected)


def test_fadas_forgets_how_late_earlier_buffers_were():
    arrays = {"w": np.zeros(1)}
    model = FlatModel(ModelSpec.of(arrays), arrays)
    rule = FADAS(1, 1.0, beta1=0.0, beta2=0.0, eps=1e-12, max_staleness=1)

    for tau, expected in [(4, 0.25), (0, 1.25)]:
        delta = torch.ones(1, dtype=torch.float64)
        rule.receive(model, Update(0, delta, torch.zeros(1), staleness=tau))
        assert float(model.vector) == pytest.approx(expected)


# --- PORT -------------------------------------------------------------------------------------


@pytest.mark.parametrize("w_c", [0.0, 1.0])
def test_port_without_delay_is_fedbuff_weighted_by_examples(w_c):
    ours = trace_without_delay(PORT(3, w_c, w_s=3.0), 3)

    assert {event.tau for event in ours} == {0}
    assert_same(ours, trace_without_delay(FedBuff(3, 1.0, constant, weighted=True), 3))


def test_port_prefers_an_update_that_points_where_the_model_went():
    def step_of(late: float) -> float:
        run = RealRun(PORT(2, w_c=1.0, w_s=0.0), [0.0])
        east, both = Work(0, (1.0,)), [Work(1, (0.0,)), Work(2, (late,))]
        events = replay(run, [(0, east), (0, east), (1, both[0]), (0, both[1])])
        return float(events[-1].parameters[0] - events[1].parameters[0])

    assert step_of(+1.0) == pytest.approx(0.5)  # agrees: weighs as much as the fresh one
    assert step_of(-1.0) == pytest.approx(0.0)  # disagrees: weighs nothing


def test_port_s_freshness_falls_to_one_half_at_beta():
    arrays = {"w": np.zeros(1)}
    model, rule = FlatModel(ModelSpec.of(arrays), arrays), PORT(2, w_c=0.0, w_s=1.0, beta=4.0)

    for delta, tau in [(3.0, 4), (0.0, 0)]:
        moved = torch.tensor([delta]).double()
        rule.receive(model, Update(0, moved, torch.zeros(1), staleness=tau))

    assert float(model.vector) == pytest.approx(3.0 * 0.5 / (0.5 + 1.0))


def test_port_survives_the_largest_update_that_admission_lets_pass():
    run = RealRun(PORT(1), INITIAL, dtype="float32")
    huge = [Work(i, (3e32, -3e32, 3e32)) for i in range(3)]

    events = replay(run, [(0, work) for work in huge])

    assert np.isfinite(events[-1].parameters).all()


def check_port_takes_what_points_nowhere(first: float, late: float) -> None:
    """Where there is no direction to compare, a late update counts as one that agrees."""
    run = RealRun(PORT(1, w_c=1.0, w_s=0.0), [0.0])
    *_, event = replay(run, [(0, Work(0, (first,))), (0, Work(1, (late,)))])
    assert event.tau == 1
    assert float(event.parameters[0]) == first + late


NOWHERE = [(2.0, 0.0), (0.0, 2.0), (0.0, 0.0)]


@pytest.mark.parametrize(("first", "late"), NOWHERE)
def test_port_takes_what_points_nowhere(first, late):
    check_port_takes_what_points_nowhere(first, late)


@pytest.mark.parametrize(("first", "late"), NOWHERE)
def test_a_division_by_what_points_nowhere_is_noticed(first, late, monkeypatch):
    def cosine(model, update):
        moved = model.vector - update.base if update.staleness else update.delta
        lengths = float(moved.norm()) * float(update.delta.norm())
        return float(moved @ update.delta) / lengths

    monkeypatch.setattr(PORT, "_cosine", staticmethod(cosine))
    with pytest.raises(ZeroDivisionError):
        check_port_takes_what_points_nowhere(first, late)


# --- FedStaleWeight ---------------------------------------------------------------------------


@pytest.mark.parametrize("average", [True, False])
def test_fedstaleweight_without_delay_is_fedbuff(average):
    ours = trace_without_delay(FedStaleWeight(3, 0.7, average), 3)

    assert_same(ours, trace_without_delay(FedBuff(3, 0.7, constant, weighted=False), 3))


def test_fedstaleweight_gives_a_late_update_the_say_of_those_it_missed():
    run = RealRun(FedStaleWeight(2, 1.0), [0.0])
    fast = [Work(0, (0.0,))] * 5

    events = replay(run, [*zip((0, 0, 1, 1, 2), fast, strict=True), (0, Work(1, (10.0,)))])

    assert events[-1].tau == 2
    assert float(events[-1].parameters[0]) == pytest.approx(10.0 * 5 / (5 + 1))


def test_fedstaleweight_goes_by_a_node_s_average_staleness():
    def weight_of_its_second_update(average: bool) -> float:
        rule = FedStaleWeight(2, 1.0, average)
        taus = [(0, 0), (1, 4), (0, 0), (1, 0)]  # (node, tau): node 1 was late once
        arrays = {"w": np.zeros(1)}
        model, before = FlatModel(ModelSpec.of(arrays), arrays), 0.0
        for node, tau in taus:
            before = float(model.vector)
            delta = torch.full((1,), float(node), dtype=torch.float64)
            model.version += rule.receive(model, Update(node, delta, torch.zeros(1), tau))
        return float(model.vector) - before

    assert weight_of_its_second_update(average=False) == pytest.approx(1 / 2)
    assert weight_of_its_second_update(average=True) == pytest.approx(5 / 6)


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "setting"),
    [
        (lambda: CA2FL(buffer_size=0), "buffer_size=0"),
        (lambda: CA2FL(server_learning_rate=0.0), "server_learning_rate=0.0"),
        (lambda: CA2FL(num_nodes=0), "num_nodes=0"),
        (lambda: ACE(num_nodes=0), "num_nodes=0"),
        (lambda: ACE(server_learning_rate=-1.0), "server_learning_rate=-1.0"),
        (lambda: ACE(max_age=-1), "max_age=-1"),
        (lambda: AREA(num_nodes=0), "num_nodes=0"),
        (lambda: AREA(publish_every=0), "publish_every=0"),
        (lambda: FADAS(buffer_size=0), "buffer_size=0"),
        (lambda: FADAS(beta1=1.0), "beta1=1.0"),
        (lambda: FADAS(beta2=-0.1), "beta2=-0.1"),
        (lambda: FADAS(eps=0.0), "eps=0.0"),
        (lambda: FADAS(max_staleness=-1), "max_staleness=-1"),
        (lambda: PORT(buffer_size=0), "buffer_size=0"),
        (lambda: PORT(w_c=-1.0), "w_c=-1.0"),
        (lambda: PORT(w_s=-1.0), "w_s=-1.0"),
        (lambda: PORT(w_c=0.0, w_s=0.0), r"w_c=0.0 and w_s=0.0"),
        (lambda: PORT(beta=0.0), "beta=0.0"),
        (lambda: FedStaleWeight(buffer_size=0), "buffer_size=0"),
        (lambda: FedStaleWeight(server_learning_rate=0.0), "server_learning_rate=0.0"),
    ],
)
def test_setting_that_cannot_work_is_named(build, setting):
    with pytest.raises(ValueError, match=setting):
        build()
