"""Courses: what flows at a rate that changes in steps, and when it changes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.errors import ConfigurationError
from fedagent.nodes.courses import Course

INF = math.inf
PAUSES = Course((0.0, 10.0, 15.0), (2.0, 0.0, 4.0), period_s=20.0)  # 20, 0 and 20 in a period


@pytest.mark.parametrize(
    ("begin_s", "amount", "expected_s"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 6.0, 3.0),
        (4.0, 6.0, 7.0),
        (0.0, 20.0, 10.0),  # the end comes before the pause, not after it
        (0.0, 22.0, 15.5),
        (8.0, 8.0, 16.0),
        (10.0, 4.0, 16.0),
        (12.0, 4.0, 16.0),
        (12.0, 20.0, 20.0),
        (12.0, 26.0, 23.0),
        (0.0, 40.0, 20.0),
        (0.0, 42.0, 21.0),
        (0.0, 400.0, 200.0),
        (10.0, 400.0, 210.0),
        (205.0, 10.0, 210.0),
        (205.0, 12.0, 215.5),
    ],
)
def test_an_amount_is_reached_when_the_rates_add_up_to_it(begin_s, amount, expected_s):
    assert PAUSES.reached_s(begin_s, amount) == expected_s


@pytest.mark.parametrize(
    ("begin_s", "amount", "expected_s"),
    [(0.0, 3.0, 3.0), (0.0, 25.0, 12.0), (0.0, 1000.0, 207.0), (1e6, 50.0, 1e6 + 10.0)],
)
def test_without_a_period_the_last_value_stays(begin_s, amount, expected_s):
    assert Course((0.0, 5.0, 10.0), (1.0, 2.0, 5.0)).reached_s(begin_s, amount) == expected_s


def test_what_is_unlimited_takes_no_time_once_it_is_there():
    course = Course((0.0, 4.0), (0.0, INF), period_s=6.0)
    assert [course.reached_s(t, 1e9) for t in (0.0, 3.0, 5.0, 6.0)] == [4.0, 4.0, 5.0, 10.0]
    assert Course().reached_s(7.0, 1e9) == 7.0


@pytest.mark.parametrize(("rate", "lasts_s"), [(0.1, 3.0), (0.1, 6.0), (0.3, 7.0)])
def test_the_last_byte_does_not_wait_for_the_end_of_a_pause_by_rounding(rate, lasts_s):
    course = Course((0.0, lasts_s), (rate, 0.0), period_s=100.0)
    amount = rate * lasts_s
    assert amount / rate > lasts_s
    assert course.reached_s(0.0, amount) == lasts_s


def test_a_constant_is_a_division():
    assert Course((0.0,), (8.0,)).reached_s(3.0, 20.0) == 3.0 + 20.0 / 8.0
    assert Course((0.0,), (8.0,), period_s=1.0).reached_s(3.0, 20.0) == pytest.approx(5.5)


def test_a_limit_is_the_most_that_flows():
    assert PAUSES.capped(3.0).values == (2.0, 0.0, 3.0)
    assert PAUSES.capped(3.0).reached_s(10.0, 15.0) == 20.0
    assert PAUSES.capped(INF) is PAUSES


def test_values_changes_and_mean():
    assert [PAUSES.at(t) for t in (0, 9, 10, 14, 15, 19, 20, 31)] == [2, 2, 0, 0, 4, 4, 2, 0]
    assert [PAUSES.next_change_s(t) for t in (0.0, 10.0, 15.0, 20.0)] == [10.0, 15.0, 20.0, 30.0]
    assert PAUSES.mean == 2.0
    assert Course((0.0, 1.0), (5.0, 7.0)).mean == 7.0


def test_equal_neighbours_are_no_change_not_even_over_the_end_of_a_period():
    course = Course((0.0, 2.0, 4.0, 6.0), (1.0, 1.0, 0.0, 1.0), period_s=8.0)
    assert [course.next_change_s(t) for t in (0.0, 4.0, 6.0)] == [4.0, 6.0, 12.0]
    assert Course((0.0, 2.0), (1.0, 1.0), period_s=8.0).next_change_s(3.0) == INF


courses = st.lists(st.tuples(st.floats(1.0, 50.0), st.floats(0.0, 9.0)), min_size=1, max_size=6)


def course_of(pieces: list[tuple[float, float]]) -> Course:
    begins_s = [sum(length for length, _ in pieces[:k]) for k in range(len(pieces) + 1)]
    values = [value if value > 0.01 else 0.0 for _, value in pieces]
    values[0] = max(values[0], 0.5)
    return Course(tuple(begins_s[:-1]), tuple(values), begins_s[-1])


@given(pieces=courses, begin_s=st.floats(0.0, 500.0), amount=st.floats(1e-3, 100.0))
def test_the_integral_up_to_the_end_is_the_amount(pieces, begin_s, amount):
    course = course_of(pieces)
    end_s = course.reached_s(begin_s, amount)
    total, now_s = 0.0, begin_s
    while now_s < end_s:
        change_s = min(course.next_change_s(now_s), end_s)
        total += course.at(now_s) * (change_s - now_s)
        now_s = change_s
    assert total == pytest.approx(amount, rel=1e-6, abs=1e-6)


@given(
    pieces=courses, begin_s=st.floats(0.0, 500.0), parts=st.lists(st.floats(0.1, 99.0), max_size=5)
)
def test_one_transfer_after_the_other_ends_when_one_of_both_does(pieces, begin_s, parts):
    course, now_s = course_of(pieces), begin_s
    for part in parts:
        following_s = course.reached_s(now_s, part)
        assert following_s >= now_s
        now_s = following_s
    whole_s = course.reached_s(begin_s, sum(parts))
    lengths = sum(course.at(t) > 0 for t in (now_s, whole_s))
    assert whole_s == pytest.approx(now_s, rel=1e-6) or lengths < 2  # a pause hides rounding


@given(pieces=courses, now_s=st.floats(0.0, 1e5))
def test_a_value_changes_exactly_when_it_says(pieces, now_s):
    course = course_of(pieces)
    for _ in range(6):
        change_s = course.next_change_s(now_s)
        if change_s == INF:
            assert course.is_constant
            return
        assert now_s < change_s
        assert course.at(math.nextafter(change_s, 0.0)) == course.at(now_s) != course.at(change_s)
        now_s = change_s


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"begins_s": (1.0,)}, "the first time being 0"),
        ({"begins_s": (0.0, 1.0)}, "one value for every time"),
        ({"begins_s": (), "values": ()}, "one value for every time"),
        ({"begins_s": (0.0, 0.0), "values": (1.0, 2.0)}, "times must increase"),
        ({"begins_s": (0.0, math.nan), "values": (1.0, 2.0)}, "times must increase"),
        ({"begins_s": (0.0, 3.0), "values": (1.0, 2.0), "period_s": 3.0}, "period_s=3.0"),
        ({"values": (-1.0,)}, "at least 0"),
        ({"values": (math.nan,)}, "at least 0"),
        ({"begins_s": (0.0, 3.0), "values": (1.0, 0.0)}, "stays 0 for ever"),
        ({"begins_s": (0.0, 3.0), "values": (0.0, 0.0), "period_s": 9.0}, "stays 0 for ever"),
    ],
)
def test_a_course_that_cannot_be_is_refused(fields, named):
    with pytest.raises(ConfigurationError, match=named):
        Course(**fields)
