"""What holds for every rule and whatever order the nodes arrive in."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.cases import for_every_rule, for_every_stable_rule
from tests.conformance.checks import fingerprint, frozen, unplain
from tests.conformance.replay import (
    Event,
    OracleRun,
    RealRun,
    Work,
    assert_same_trace,
    fleet,
)

SIZE = 3
INITIAL = (0.5, -1.0, 2.0)

numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
works = st.builds(
    Work,
    node=st.integers(0, 4),
    delta=st.tuples(*[numbers] * SIZE),
    num_examples=st.floats(2.0**-10, 1e9, width=32),
    counter=st.integers(0, 10**6),
    local_steps=st.none() | st.integers(1, 100),
)
histories = st.lists(works, min_size=1, max_size=24)
quick = settings(max_examples=30, deadline=None)


def largest(works: Sequence[Work], events: Sequence[Event]) -> float:
    """Return a bound of every number that a history meets, client models included."""
    delta = max(float(np.abs(work.delta).max()) for work in works)
    model = max(2.0, *(float(np.abs(event.parameters).max()) for event in events))
    return model + delta


def scaled(work: Work, scale: float) -> Work:
    return replace(work, delta=tuple(scale * x for x in work.delta))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@for_every_stable_rule
@quick
@given(data=st.data(), history=histories)
def test_running_sums_equal_the_oracle_s_lists_up_to_rounding(configurations, dtype, data, history):
    """Bound: eight roundings per update, of the largest number in the whole history.

    An update is rounded where client model and delta are formed, weighted, summed and applied:
    seven times at most. With float32's epsilon of 1.2e-7, 24 updates stay within 2.3e-5.
    """
    case = data.draw(configurations)
    history = [scaled(work, case.scale) for work in history]
    actual = fleet(RealRun(case.rule(), INITIAL, dtype), history)
    expected = fleet(OracleRun(case.oracle(), INITIAL), history)

    rounding = np.finfo(dtype).eps * largest(history, expected)
    assert_same_trace(actual, expected, tolerance=8 * len(history) * rounding)


@for_every_rule
@quick
@given(data=st.data(), history=histories)
def test_every_weight_lies_between_zero_and_one_and_a_fresh_one_is_one(
    configurations, data, history
):
    case = data.draw(configurations)
    events = fleet(RealRun(case.rule(), INITIAL), history)

    weights = [(event.tau, event.weight) for event in events if event.weight is not None]
    assert all(0.0 <= weight <= 1.0 for _, weight in weights)
    assert all(weight == 1.0 for tau, weight in weights if tau == 0)


@for_every_rule
@quick
@given(data=st.data(), history=histories)
def test_run_resumed_after_any_event_goes_on_with_the_same_bytes(configurations, data, history):
    case = data.draw(configurations)
    stop_after = data.draw(st.integers(0, len(history)))
    straight, jobs = RealRun(case.rule(), INITIAL, "float32"), {}
    for node in range(5):
        jobs[node] = straight.dispatch(node)
    fleet(straight, history[:stop_after], jobs)
    state, jobs_then = straight.state(), dict(jobs)
    expected = fleet(straight, history[stop_after:], jobs)  # must not write into `state`

    for _ in range(2):  # nor may the run that was resumed from it
        resumed = RealRun(case.rule(), [9.0] * SIZE, "float32").resume(state)
        actual = fleet(resumed, history[stop_after:], dict(jobs_then))

        assert [fingerprint(event) for event in actual] == [fingerprint(e) for e in expected]
        assert frozen(resumed.rule.state_dict()) == frozen(straight.rule.state_dict())
        assert frozen(resumed.model.state_dict()) == frozen(straight.model.state_dict())


@for_every_rule
@quick
@given(data=st.data(), history=histories)
def test_state_is_made_of_tensors_and_plain_values(configurations, data, history):
    case = data.draw(configurations)
    run = RealRun(case.rule(), INITIAL)
    fleet(run, history)

    assert not unplain(run.rule.state_dict())


@for_every_rule
@quick
@given(data=st.data(), history=histories)
def test_ledger_never_holds_a_version_nobody_needs(configurations, data, history):
    case = data.draw(configurations)
    run, jobs = RealRun(case.rule(), INITIAL), {}

    for work in history:
        fleet(run, [work], jobs)
        needed = {dispatch.version for dispatch in run.ledger.in_flight()} | {run.version}
        assert run.ledger.versions() == sorted(needed)
        assert len(run.ledger) == len(jobs)


@for_every_rule
@quick
@given(data=st.data(), history=histories)
def test_base_version_never_changes_once_dispatched(configurations, data, history):
    case = data.draw(configurations)
    run, jobs = RealRun(case.rule(), INITIAL), {}

    for work in history:
        fleet(run, [work], jobs)
        for dispatch in run.ledger.in_flight():
            base = run.ledger.base(dispatch)
            assert base.vector.numpy().tobytes() == run.published[base.number]


@for_every_rule
@quick
@given(data=st.data(), history=histories)
def test_reply_settles_once_and_a_second_one_changes_nothing(configurations, data, history):
    case = data.draw(configurations)
    run = RealRun(case.rule(), INITIAL)
    for work in history:
        job = run.dispatch(work.node)
        run.arrive(job, work)
        before = (frozen(run.model.state_dict()), frozen(run.rule.state_dict()))

        assert run.ledger.get(job) is None
        with pytest.raises(KeyError):
            run.ledger.settle(job)

        assert (frozen(run.model.state_dict()), frozen(run.rule.state_dict())) == before
        assert run.ledger.versions() == [run.version]


@for_every_rule
@quick
@given(data=st.data(), history=histories)
def test_rule_leaves_counting_versions_to_the_proxy(configurations, data, history):
    case = data.draw(configurations)
    events = fleet(RealRun(case.rule(), INITIAL), history)

    assert events[-1].version == sum(event.published for event in events)


@for_every_rule
@quick
@given(data=st.data(), history=histories)
def test_same_history_gives_the_same_bytes(configurations, data, history):
    case = data.draw(configurations)
    runs = [fleet(RealRun(case.rule(), INITIAL, "float32"), history) for _ in range(2)]

    assert len({tuple(fingerprint(event) for event in run) for run in runs}) == 1
