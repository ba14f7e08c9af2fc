"""Deadlines learned from how long nodes take."""

import pytest

from fedagent.nodes.backoff import Backoff
from fedagent.nodes.deadlines import Deadlines
from fedagent.nodes.membership import Membership
from fedagent.nodes.population import Population


def learned(durations_s, **options):
    deadlines = Deadlines(10_000.0, **options)
    for node_id, duration_s in enumerate(durations_s):
        deadlines.observe(node_id, duration_s)
    return deadlines


def test_while_nothing_is_known_the_limit_holds():
    assert Deadlines(10_000.0).for_node(7) == 10_000.0


def test_a_node_that_is_known_gets_three_times_its_longest_of_the_last_five():
    deadlines = Deadlines(10_000.0)
    for duration_s in (900.0, 300.0, 100.0, 50.0, 40.0, 30.0):
        deadlines.observe(7, duration_s)
    assert deadlines.for_node(7) == 900.0
    deadlines.observe(7, 20.0)
    assert deadlines.for_node(7) == 300.0
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


def test_the_percentile_is_taken_again_once_a_tenth_of_the_nodes_have_news():
    deadlines = learned([100.0] * 40)
    assert deadlines.for_node(99) == 300.0
    for node_id in range(3):
        deadlines.observe(node_id, 2_000.0)
    assert deadlines.for_node(99) == 300.0
    deadlines.observe(3, 2_000.0)
    assert deadlines.for_node(99) == 6_000.0


def test_a_fast_node_that_is_slow_for_once_gets_as_long_as_most():
    assert learned([100.0] * 2 + [1_000.0] * 30).for_node(0) == 3_000.0


@pytest.mark.parametrize(("duration_s", "expected_s"), [(0.1, 60.0), (9_000.0, 10_000.0)])
def test_no_deadline_is_below_the_floor_or_beyond_the_limit(duration_s, expected_s):
    assert learned([duration_s]).for_node(0) == expected_s


def test_with_an_infinite_factor_nothing_is_learned():
    assert learned([100.0] * 30, factor=float("inf")).for_node(0) == 10_000.0


# --- what is forgotten ----------------------------------------------------------------------------


def present(*node_ids: int) -> Membership:
    membership = Membership(Backoff())
    membership.refresh(node_ids)
    return membership


def test_a_node_that_is_there_is_remembered_however_long_ago_it_was_heard_of():
    deadlines = learned([2_000.0] + [100.0] * 200)
    deadlines.forget_departed(present(0))
    assert deadlines.for_node(0) == 6_000.0
    assert deadlines.num_nodes == 1 + 20


@pytest.mark.parametrize(("comes_back", "expected_s"), [(False, 300.0), (True, 6_000.0)])
def test_of_those_that_left_the_ones_heard_of_last_keep_their_deadline(comes_back, expected_s):
    deadlines = learned([2_000.0] + [100.0] * 39)
    deadlines.forget_departed(present())
    assert deadlines.for_node(0) == 6_000.0, "40 are not too many"
    deadlines.observe(0 if comes_back else 40, 100.0)
    deadlines.observe(41, 100.0)
    deadlines.observe(42, 100.0)
    deadlines.forget_departed(present())
    assert deadlines.num_nodes == 20
    assert deadlines.for_node(0) == expected_s


@pytest.mark.parametrize("num_present", [0, 20, 500])
def test_devices_that_come_under_a_new_id_each_time_take_no_memory_for_good(num_present):
    deadlines = learned([1_000.0] * num_present)
    for newcomer in range(10_000, 20_000):
        deadlines.observe(newcomer, 50.0)
        deadlines.forget_departed(present(*range(num_present)))
    assert deadlines.num_nodes <= 2 * max(20, num_present) + 1
    if num_present:
        assert deadlines.for_node(0) == 3_000.0


def test_a_population_is_asked_node_by_node():
    class Even(Population):
        registered = range(200)

        def __contains__(self, node_id):
            return node_id in self.registered and node_id % 2 == 0

    membership = Membership(Backoff())
    membership.refresh(Even())
    deadlines = learned([100.0] * 5_000)
    deadlines.forget_departed(membership)
    assert deadlines.num_nodes == 100 + 100
