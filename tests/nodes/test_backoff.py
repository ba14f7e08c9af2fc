"""How long failing nodes wait, and when a storm of failures lets only probes through."""

import math

import pytest

from fedagent.errors import ConfigurationError
from fedagent.nodes.backoff import Backoff, Breaker

BACKOFF = Backoff(base_s=2.0, cap_s=10.0, storm=3)


def test_the_wait_doubles_with_every_failure_up_to_its_cap():
    assert [BACKOFF.wait_s(n) for n in range(1, 6)] == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert BACKOFF.wait_s(10**6) == 10.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"base_s": 0.0}, "base_s"),
        ({"base_s": math.nan}, "base_s"),
        ({"cap_s": math.nan}, "cap_s"),
        ({"base_s": 5.0, "cap_s": 4.0}, r"base_s=5\.0 must not be longer than cap_s=4\.0"),
        ({"storm": 0}, "storm=0"),
    ],
)
def test_a_back_off_that_cannot_work_is_refused_by_name(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        Backoff(**arguments)


def storm(breaker: Breaker, failures: int, now_s: float = 0.0) -> None:
    for _ in range(failures):
        breaker.record(False, now_s)


def test_a_closed_breaker_lets_everybody_work():
    breaker = Breaker(BACKOFF)
    storm(breaker, 2)
    assert not breaker.is_open
    assert breaker.limit(50, now_s=0.0) == 50
    assert breaker.probe_at_s == -math.inf


def test_a_storm_opens_it_and_it_lets_a_single_probe_through():
    breaker = Breaker(BACKOFF)
    storm(breaker, 3, now_s=100.0)
    assert breaker.is_open
    assert breaker.probe_at_s == 102.0
    assert breaker.limit(50, now_s=101.9) == 0
    assert breaker.limit(50, now_s=102.0) == 1
    assert breaker.limit(0, now_s=102.0) == 0


def test_probes_that_fail_come_less_and_less_often():
    breaker, now_s, waits = Breaker(BACKOFF), 0.0, []
    storm(breaker, 2)
    for _ in range(5):
        breaker.record(False, now_s)
        waits.append(breaker.probe_at_s - now_s)
        now_s = breaker.probe_at_s
    assert waits == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_probe_that_succeeds_closes_it():
    breaker = Breaker(BACKOFF)
    storm(breaker, 5)
    breaker.record(True, now_s=20.0)
    assert breaker.limit(50, now_s=20.0) == 50
    storm(breaker, 2, now_s=21.0)
    assert not breaker.is_open, "failures are counted from the last success"


def test_failures_with_successes_in_between_are_no_storm():
    breaker = Breaker(BACKOFF)
    for _ in range(20):
        storm(breaker, 2)
        breaker.record(True, now_s=0.0)
    assert not breaker.is_open
