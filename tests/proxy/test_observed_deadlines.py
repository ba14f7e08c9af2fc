"""Deadlines learned from how long nodes take."""

import pytest

from fedagent import FedBuff
from fedagent.errors import ConfigurationError
from fedagent.nodes.deadlines import Deadlines
from fedagent.proxy.options import AsyncOptions
from fedagent.scheduling import RoundRobin
from fedagent.simulation import Scripted
from fedagent.stopping import MaxSeconds
from tests.toy import Log, run


def learned(durations_s, **options):
    deadlines = Deadlines(10_000.0, **options)
    for node_id, duration_s in enumerate(durations_s):
        deadlines.observe(node_id, duration_s)
    return deadlines


def test_while_nothing_is_known_the_limit_holds():
    assert Deadlines(10_000.0).for_node(7) == 10_000.0


def test_a_node_that_is_known_gets_three_times_its_longest_of_the_last_five():
    deadlines = Deadlines(10_000.0)
    for duration_s in (900.0, 100.0, 50.0, 300.0, 40.0, 30.0):
        deadlines.observe(7, duration_s)
    assert deadlines.for_node(7) == 900.0
    assert deadlines.for_node(8) == 10_000.0


def test_a_newcomer_gets_three_times_the_95th_percentile_of_twenty_nodes():
    assert learned(range(100, 119)).for_node(99) == 10_000.0
    durations_s = [100.0 + 10.0 * k for k in range(21)]  # the 95th percentile is the 20th of them
    assert learned(durations_s).for_node(99) == pytest.approx(3 * 290.0)


def test_every_node_counts_once_however_often_it_answers():
    deadlines = learned([1_000.0] * 20)
    for _ in range(10_000):
        deadlines.observe(0, 100.0)
    assert deadlines.for_node(99) == 3_000.0


def test_a_fast_node_that_is_slow_for_once_gets_as_long_as_most():
    assert learned([100.0] * 2 + [1_000.0] * 30).for_node(0) == 3_000.0


@pytest.mark.parametrize(("duration_s", "expected_s"), [(0.1, 60.0), (9_000.0, 10_000.0)])
def test_no_deadline_is_below_the_floor_or_beyond_the_limit(duration_s, expected_s):
    assert learned([duration_s]).for_node(0) == expected_s


def test_with_an_infinite_factor_nothing_is_learned():
    assert learned([100.0] * 30, factor=float("inf")).for_node(0) == 10_000.0


def test_a_factor_that_makes_half_of_all_late_is_refused():
    with pytest.raises(ConfigurationError, match="deadline_factor"):
        AsyncOptions(deadline_factor=0.5)


def settlements(times_s, **options):
    log = Log()
    strategy = FedBuff(
        buffer_size=2,
        scheduler=RoundRobin(),  # who is slow comes last
        stopping=[MaxSeconds(50_000.0)],
        callbacks=[log],
        fraction_evaluate=0.0,
        deadline_s=40_000.0,
        **options,
    )
    run(strategy, Scripted(num_nodes=len(times_s), times=times_s), rounds=10_000)
    return log


def test_a_node_that_is_late_once_is_given_the_time_it_takes():
    times_s = (*[100.0] * 24, 1_000.0)
    log = settlements(times_s, deadline_factor=3.0, concurrency=1)
    overdue = [s for s in log.settlements if s.reason == "deadline"]
    assert [s.detail for s in overdue] == ["no reply within 300 s"]
    slow = overdue[0].dispatch.node_id
    applied = [s for s in log.settlements if s.dispatch.node_id == slow and s.outcome == "applied"]
    assert applied
    assert log.statistics.unsolicited["late"] == 1


def test_in_a_simulation_deadlines_are_what_was_asked_for():
    log = settlements((*[100.0] * 24, 1_000.0), concurrency=1)
    assert not [s for s in log.settlements if s.reason == "deadline"]
