"""Who may work now: nodes that rest, nodes that vanish and nodes that are overdue."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagent.nodes.backoff import Backoff
from fedagent.nodes.membership import Membership
from fedagent.nodes.population import Population

BACKOFF = Backoff(base_s=2.0, cap_s=10.0, storm=3)


def members(*node_ids: int) -> Membership:
    membership = Membership(BACKOFF)
    membership.refresh(node_ids)
    return membership


def fail(membership: Membership, node_id: int, now_s: float) -> float:
    """Let an idle node fail; return the seconds until it is idle again."""
    membership.take(node_id)
    membership.release(node_id, now_s, succeeded=False)
    assert node_id not in membership.idle
    until_s = membership.next_wake_s()
    membership.wake(math.nextafter(until_s, 0.0))
    assert node_id not in membership.idle
    membership.wake(until_s)
    assert node_id in membership.idle
    return until_s - now_s


# --- back-off -------------------------------------------------------------------------------------


def test_waiting_doubles_with_every_failure_in_a_row_up_to_the_cap():
    assert [BACKOFF.wait_s(n) for n in (1, 2, 3, 4, 5)] == [2.0, 4.0, 8.0, 10.0, 10.0]


@given(st.integers(1, 10**9))
def test_no_number_of_failures_waits_longer_than_the_cap(failures):
    assert 2.0 <= BACKOFF.wait_s(failures) <= 10.0


def test_a_failing_node_rests_longer_each_time_up_to_the_cap():
    membership, now_s, waits = members(1), 0.0, []
    for _ in range(5):
        waits.append(fail(membership, 1, now_s))
        now_s += waits[-1] + 1.0
    assert waits == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_success_resets_the_back_off():
    membership = members(1)
    fail(membership, 1, 0.0)
    fail(membership, 1, 10.0)
    membership.take(1)
    membership.release(1, 20.0, succeeded=True)
    assert 1 in membership.idle
    assert fail(membership, 1, 30.0) == 2.0


def test_an_end_that_says_nothing_of_the_node_neither_rests_it_nor_resets_its_back_off():
    membership = members(1)
    fail(membership, 1, 0.0)
    membership.take(1)
    membership.release(1, 10.0)
    assert 1 in membership.idle
    assert fail(membership, 1, 20.0) == 4.0


def test_a_second_failure_during_a_rest_prolongs_it():
    membership = members(1)
    membership.take(1)
    membership.release(1, 0.0, succeeded=False)
    membership.release(1, 1.0, succeeded=False)  # a late reply of a job long given up
    membership.wake(2.0)
    assert 1 not in membership.idle
    membership.wake(5.0)
    assert 1 in membership.idle


def test_one_nodes_failures_do_not_make_another_rest():
    membership = members(1, 2)
    fail(membership, 1, 0.0)
    assert fail(membership, 2, 20.0) == 2.0


def test_nodes_wake_in_the_order_of_their_rests():
    membership = members(1, 2)
    for node_id, now_s in ((2, 0.0), (1, 1.0)):
        membership.take(node_id)
        membership.release(node_id, now_s, succeeded=False)
    assert membership.next_wake_s() == 2.0
    membership.wake(2.0)
    assert list(membership.idle) == [2]
    assert membership.next_wake_s() == 3.0
    membership.wake(100.0)
    assert list(membership.idle) == [2, 1]
    assert membership.next_wake_s() == math.inf


# --- coming and going -----------------------------------------------------------------------------


def test_newcomers_are_idle_and_the_vanished_get_no_work():
    membership = members(1, 2)
    membership.refresh([2, 3])
    assert list(membership.idle) == [2, 3]
    assert len(membership) == 2


def test_a_busy_node_is_not_idle_until_it_is_released():
    membership = members(1, 2)
    membership.take(1)
    membership.refresh([1, 2])
    assert list(membership.idle) == [2]
    membership.release(1, 5.0, succeeded=True)
    assert list(membership.idle) == [2, 1]


def test_a_node_that_vanished_at_work_gets_nothing_even_when_its_reply_comes():
    membership = members(1)
    membership.take(1)
    membership.refresh([])
    membership.release(1, 5.0, succeeded=True)
    assert not membership.idle
    membership.refresh([1])
    assert 1 in membership.idle


def test_a_node_that_comes_back_while_still_at_work_waits_for_its_reply():
    membership = members(1)
    membership.take(1)
    membership.refresh([])
    membership.refresh([1])
    assert 1 not in membership.idle
    membership.release(1, 5.0, succeeded=True)
    assert 1 in membership.idle


def test_leaving_and_coming_back_does_not_shorten_a_rest():
    membership = members(1)
    membership.take(1)
    membership.release(1, 0.0, succeeded=False)
    membership.refresh([])
    membership.refresh([1])
    assert 1 not in membership.idle
    membership.wake(2.0)
    assert 1 in membership.idle


def test_a_rest_that_ends_while_the_node_is_away_is_over_when_it_is_back():
    membership = members(1)
    membership.take(1)
    membership.release(1, 0.0, succeeded=False)
    membership.refresh([])
    membership.wake(2.0)
    assert not membership.idle
    membership.refresh([1])
    assert 1 in membership.idle


@pytest.mark.parametrize("later", [range(2, 5), [2, 3, 4], range(0), range(1, 5), range(7, 9)])
def test_a_range_of_nodes_is_as_good_as_a_list(later):
    ranged, listed = Membership(BACKOFF), Membership(BACKOFF)
    for membership, kind in ((ranged, lambda nodes: nodes), (listed, list)):
        for nodes in (range(1, 4), range(1, 4), later, range(1, 4)):
            membership.refresh(kind(nodes))
            for node in set(membership.idle) & {2}:
                membership.take(node)
        membership.release(2, 1.0, succeeded=True)
    assert list(ranged.idle) == list(listed.idle)
    assert len(ranged) == len(listed) == 3


# --- a population that is described ---------------------------------------------------------------


class There(Population):
    registered = range(4)

    def __init__(self, *there):
        self._there = there

    def __contains__(self, node_id):
        return node_id in self._there


def among(*there: int) -> Membership:
    membership = Membership(BACKOFF)
    membership.refresh(There(*there))
    return membership


def test_of_a_population_those_that_are_there_may_work():
    membership = among(1, 2)
    assert (list(membership.idle), len(membership)) == ([1, 2], 2)
    membership.refresh(There(0, 1, 3))
    assert (sorted(membership.idle), len(membership)) == ([0, 1, 3], 3)


@pytest.mark.parametrize("nodes", [range(4), There(0, 1, 2, 3), [0, 1, 2, 3]])
def test_who_is_at_work_or_rests_before_the_first_look_is_not_idle(nodes):
    membership = Membership(BACKOFF)
    membership.take(1)
    membership.take(2)
    membership.release(2, 0.0, succeeded=False)
    membership.refresh(nodes)
    assert list(membership.idle) == [0, 3]
    membership.wake(2.0)
    membership.release(1, 2.0)
    assert sorted(membership.idle) == [0, 1, 2, 3]


def test_a_node_found_absent_is_looked_for_again_unless_it_is_at_work_by_then():
    membership = among(2)
    assert list(membership.idle) == [2]  # 0 and 1 were asked for
    membership.take(1)  # by an evaluation, say
    membership.refresh(There(0, 1))
    assert list(membership.idle) == [0]
    membership.release(1, 0.0)
    assert sorted(membership.idle) == [0, 1]


def test_a_node_whose_reply_comes_while_it_is_away_works_again_when_it_is_back():
    membership = among(1)
    membership.take(1)
    membership.refresh(There())
    membership.release(1, 5.0, succeeded=True)
    assert not membership.idle
    assert not membership.may_queue(1)
    membership.refresh(There(1))
    assert list(membership.idle) == [1]
    assert membership.may_queue(1)


@pytest.mark.parametrize("is_overdue_first", [True, False])
def test_an_overdue_node_of_a_population_that_leaves_starts_afresh(is_overdue_first):
    membership = among(1)
    membership.take(1)
    if is_overdue_first:
        membership.overdue(1)
        membership.refresh(There())
    else:
        membership.refresh(There())
        membership.overdue(1)
    membership.refresh(There(1))
    assert list(membership.idle) == [1]


# --- overdue --------------------------------------------------------------------------------------


def overdue(node_id: int) -> Membership:
    membership = members(node_id)
    membership.take(node_id)
    membership.overdue(node_id)
    return membership


def test_an_overdue_node_gets_nothing():
    membership = overdue(1)
    membership.refresh([1])
    membership.wake(1e9)
    assert 1 not in membership.idle


@pytest.mark.parametrize(("succeeded", "idle_from_s"), [(True, 50.0), (False, 52.0)])
def test_an_overdue_node_that_is_heard_of_works_again(succeeded, idle_from_s):
    membership = overdue(1)
    membership.release(1, 50.0, succeeded)
    assert (1 in membership.idle) == succeeded
    membership.wake(idle_from_s)
    assert 1 in membership.idle


@pytest.mark.parametrize("nodes", [range(4), [0, 1, 2, 3], There(0, 1, 2, 3)])
def test_reachable_is_who_is_there_at_work_or_not_and_not_overdue(nodes):
    membership = Membership(BACKOFF)
    membership.refresh(nodes)
    membership.take(1)
    membership.take(2)
    membership.overdue(2)
    assert list(membership.reachable()) == [0, 1, 3]


def test_an_overdue_node_that_leaves_starts_afresh_when_it_is_back():
    membership = overdue(1)
    membership.refresh([])
    membership.refresh([1])
    assert 1 in membership.idle
    assert list(membership.reachable()) == [1], "it may evaluate"
    membership.take(1)
    assert membership.may_queue(1)


def test_a_node_that_was_heard_of_is_overdue_no_more():
    membership = overdue(1)
    assert list(membership.reachable()) == []
    membership.release(1, 50.0, succeeded=True)
    assert list(membership.reachable()) == [1]
    membership.take(1)
    membership.refresh([])
    membership.refresh([1])
    assert 1 not in membership.idle, "it is still at work"


def test_a_node_that_left_before_it_was_overdue_starts_afresh_when_it_is_back():
    membership = members(1)
    membership.take(1)
    membership.refresh([])
    membership.overdue(1)
    assert not membership.idle
    membership.refresh([1])
    assert 1 in membership.idle


def test_a_late_reply_does_not_free_a_node_that_began_anew_meanwhile():
    membership = overdue(1)
    membership.refresh([])
    membership.refresh([1])
    membership.take(1)  # and is at work
    membership.release(1, 50.0, succeeded=False, is_late=True)  # of what was forgotten
    assert 1 not in membership.idle
    membership.release(1, 51.0, succeeded=True)
    assert 1 in membership.idle


def test_of_two_jobs_that_are_overdue_the_second_keeps_its_node_busy():
    membership = overdue(1)
    membership.take(1)
    membership.overdue(1)
    membership.release(1, 50.0, succeeded=True, is_late=True)
    assert 1 not in membership.idle
    assert not list(membership.reachable())
    membership.release(1, 51.0, succeeded=True, is_late=True)
    assert 1 in membership.idle


def test_who_is_done_with_a_later_job_is_not_busy_with_an_overdue_one():
    membership = overdue(1)
    membership.take(1)
    membership.release(1, 50.0, succeeded=True)
    assert 1 in membership.idle
    assert list(membership.reachable()) == [1]
    membership.take(1)
    membership.release(1, 60.0, succeeded=True, is_late=True)
    assert 1 not in membership.idle, "it is at the job after that"


def test_failing_is_whose_last_job_failed_and_who_is_overdue():
    membership = members(1, 2, 3)
    for node_id in (1, 2, 3):
        membership.take(node_id)
    membership.overdue(1)
    membership.release(2, 0.0, succeeded=False)
    membership.wake(10.0)
    assert sorted(membership.failing()) == [1, 2]
    membership.take(2)
    for node_id in (2, 3):
        membership.release(node_id, 20.0, succeeded=True)
    assert list(membership.failing()) == [1]


# --- all of it at once ----------------------------------------------------------------------------

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("refresh"), st.sets(st.integers(0, 3))),
        st.tuples(st.just("take"), st.integers(0, 3)),
        st.tuples(st.just("reply"), st.tuples(st.integers(0, 3), st.booleans())),
        st.tuples(st.just("overdue"), st.integers(0, 3)),
        st.tuples(st.just("pass"), st.sampled_from([0.5, 2.0, 7.0])),
    ),
    max_size=40,
)


@pytest.mark.parametrize("described", [sorted, lambda nodes: There(*nodes)], ids=["list", "asked"])
@settings(max_examples=200, deadline=None)
@given(events=EVENTS)
def test_nodes_are_idle_exactly_when_they_are_there_free_and_rested(described, events):
    """The plain model: every node's own four facts."""
    membership, now_s = Membership(BACKOFF), 0.0
    present, busy, stuck = set(), set(), set()
    rests, failures = dict.fromkeys(range(4), 0.0), dict.fromkeys(range(4), 0)

    for event, value in events:
        if event == "refresh":
            membership.refresh(described(value))
            left = present - value
            busy -= stuck & left
            stuck -= left
            present = value
        elif event == "take" and value in membership.idle:
            membership.take(value)
            busy.add(value)
        elif event == "reply" and value[0] in busy:
            node, succeeded = value
            membership.release(node, now_s, succeeded)
            busy.discard(node)
            stuck.discard(node)
            failures[node] = 0 if succeeded else failures[node] + 1
            if not succeeded:
                rests[node] = now_s + min(10.0, 2.0 ** failures[node])
        elif event == "overdue" and value in busy:
            membership.overdue(value)
            if value in present:
                stuck.add(value)
            else:
                busy.discard(value)
        elif event == "pass":
            now_s += value
        membership.wake(now_s)
        rested = {node for node in range(4) if rests[node] <= now_s}
        assert set(membership.idle) == (present - busy) & rested
        assert len(membership) == len(present)
