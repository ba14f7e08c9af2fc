"""What a job costs: overhead and seconds per step, told apart by jobs of two sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.errors import ConfigurationError
from fedagent.scheduling.cost import Costs

seconds = st.floats(1e-3, 1e3)


def seen(jobs, ema=0.5):
    costs = Costs(ema)
    for steps, duration_s in jobs:
        costs.observe(1, steps, duration_s)
    return costs.of(1)


@given(overhead=seconds, step=seconds, sizes=st.lists(st.integers(1, 64), min_size=2, max_size=9))
def test_jobs_of_two_sizes_tell_overhead_and_steps_apart(overhead, step, sizes):
    known = seen([(size, overhead + size * step) for size in sizes])
    if len(set(sizes)) == 1:
        assert not known.is_told_apart
        assert known.overhead_s == pytest.approx(0.0, abs=1e-9 * known.seconds_per_step * sizes[0])
    elif overhead < 100 * step:
        assert known.is_told_apart
        assert known.overhead_s == pytest.approx(overhead, rel=1e-3, abs=1e-3 * step)
        assert known.seconds_per_step == pytest.approx(step, rel=1e-3)
    assert known.last_steps == sizes[-1]


def test_the_line_stays_when_all_later_jobs_are_of_one_size():
    known = seen([(1, 7.0), (2, 8.0)] + [(8, 14.0)] * 3)
    assert (known.overhead_s, known.seconds_per_step) == pytest.approx((6.0, 1.0))


@pytest.mark.parametrize("ema", [0.1, 0.5, 0.9, None])
def test_the_line_stays_however_many_they_are(ema):
    costs = Costs(ema)
    for steps in (1, 2, *[8] * 2_000):
        costs.observe(1, steps, 0.06 + 0.01 * steps)
    known = costs.of(1)
    assert (known.overhead_s, known.seconds_per_step) == pytest.approx((0.06, 0.01), rel=1e-6)
    costs.observe(1, 16, 0.06 + 0.02 * 16)
    assert costs.of(1).seconds_per_step > 0.012, "a new size tells something again"


def test_newer_jobs_weigh_more():
    slower = [(1, 1.0), (2, 2.0)] + [(1, 10.0), (2, 20.0)] * 6
    assert seen(slower).seconds_per_step == pytest.approx(10.0, rel=0.2)
    assert seen(slower, ema=0.1).seconds_per_step < seen(slower, ema=0.5).seconds_per_step


def test_all_jobs_may_weigh_the_same_and_make_the_least_squares_line():
    jobs = [(1, 3.0), (4, 9.0), (8, 14.0), (2, 6.0), (8, 19.0)]
    slope, intercept = np.polyfit(*zip(*jobs, strict=True), 1)
    known = seen(jobs, ema=None)
    assert (known.overhead_s, known.seconds_per_step) == pytest.approx((intercept, slope))


@pytest.mark.parametrize("jobs", [[(1, 5.0), (8, 1.0)], [(1, 1.0), (2, 100.0)], [(4, 0.0)]])
def test_noise_makes_neither_part_negative(jobs):
    known = seen(jobs)
    assert known.overhead_s >= 0.0
    assert known.seconds_per_step > 0.0


def test_of_jobs_without_a_size_nothing_is_learned():
    assert seen([(None, 3.0)]) is None
    assert Costs().of(7) is None


@pytest.mark.parametrize("ema", [0.0, -1.0, 1.5])
def test_a_weight_that_cannot_be_is_refused(ema):
    with pytest.raises(ConfigurationError, match="ema"):
        Costs(ema)
