"""Virtual time passes only when something is waited for, and events come in one order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.grids import Clock
from fedagent.simulation.clock import EventQueue, VirtualClock

SECONDS = st.floats(0.0, 1e9)


def test_it_is_a_clock_that_says_its_time_is_virtual():
    assert isinstance(VirtualClock(), Clock)
    assert VirtualClock().is_virtual


@given(st.lists(SECONDS))
def test_time_never_runs_backwards(times):
    clock = VirtualClock()
    for time_s in times:
        clock.advance_to(time_s)
    assert clock.now() == max(times, default=0.0)


def test_a_pause_lasts_until_the_announced_time():
    clock = VirtualClock()
    clock.wake_at(7.0)
    clock.pause()
    assert clock.now() == 7.0


def test_a_pause_without_an_announcement_takes_no_time():
    clock = VirtualClock()
    clock.advance_to(3.0)
    clock.pause()
    clock.wake_at(math.inf)
    clock.pause()
    assert clock.now() == 3.0


@pytest.mark.parametrize(("wake_at_s", "horizon_s"), [(2.0, 5.0), (9.0, 9.0), (math.inf, math.inf)])
def test_the_horizon_is_what_was_announced_but_not_the_past(wake_at_s, horizon_s):
    clock = VirtualClock()
    clock.advance_to(5.0)
    clock.wake_at(wake_at_s)
    assert clock.horizon_s == horizon_s


@given(st.lists(SECONDS | st.sampled_from([1.0, 2.0])), st.randoms(use_true_random=False))
def test_events_come_by_time_then_number_whatever_order_they_were_added_in(times, shuffler):
    numbered = list(enumerate(times))
    shuffler.shuffle(numbered)
    events = EventQueue[int]()
    for number, time_s in numbered:
        events.add(time_s, number, number)
    popped = [events.pop() for _ in times]
    assert popped == sorted((t, n) for n, t in enumerate(times))


def test_events_need_not_be_comparable():
    events = EventQueue[object]()
    first, second = object(), object()
    events.add(1.0, 2, second)
    events.add(1.0, 1, first)
    assert [events.pop()[1], events.pop()[1]] == [first, second]


def test_events_of_the_same_time_and_number_come_in_the_order_they_were_added_in():
    events = EventQueue[object]()
    first, second = object(), object()
    events.add(1.0, 1, first)
    events.add(1.0, 1, second)
    assert [events.pop()[1], events.pop()[1]] == [first, second]


def test_an_empty_queue_has_no_next_event():
    events = EventQueue[str]()
    assert events.next_s() == math.inf
    events.add(4.0, 1, "a")
    assert events.next_s() == 4.0
    assert len(events) == 1
    events.pop()
    assert events.next_s() == math.inf
    assert not events
