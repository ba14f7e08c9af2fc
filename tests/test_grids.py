"""Clocks: a real one that sleeps little, and which one a grid goes by."""

import math

import pytest

from fedagent import grids as clock
from fedagent.grids import Clock, WallClock, clock_of
from fedagent.simulation import Equal
from tests.simulation.apps import grid_of


@pytest.fixture
def real(monkeypatch):
    """Real time under the test's control: its present, and the sleeps asked for."""

    class Real:
        now_s, sleeps = 100.0, []

        def sleep(self, seconds):
            assert seconds >= 0
            self.sleeps.append(seconds)
            self.now_s += seconds

    real = Real()
    real.sleeps = []
    monkeypatch.setattr(clock.time, "monotonic", lambda: real.now_s)
    monkeypatch.setattr(clock.time, "sleep", real.sleep)
    return real


def test_a_wall_clock_reads_real_seconds(real):
    wall = WallClock()
    assert wall.now() == 100.0
    real.now_s = 101.5
    assert wall.now() == 101.5
    assert not wall.is_virtual


@pytest.mark.parametrize(
    ("wake_at_s", "slept_s"),
    [(math.inf, 0.5), (200.0, 0.5), (100.25, 0.25), (100.0, 0.0), (7.0, 0.0)],
)
def test_a_pause_is_one_poll_interval_or_less_if_something_is_due(real, wake_at_s, slept_s):
    wall = WallClock(poll_interval_s=0.5)
    wall.wake_at(wake_at_s)
    wall.pause()
    assert real.sleeps == [slept_s]


def test_without_an_announcement_a_pause_is_one_poll_interval(real):
    WallClock(poll_interval_s=0.125).pause()
    assert real.sleeps == [0.125]


def test_a_simulated_grid_brings_its_own_clock():
    grid = grid_of(Equal(num_nodes=1))
    assert clock_of(grid) is grid.clock


@pytest.mark.parametrize("attributes", [{}, {"clock": None}, {"clock": "noon"}])
def test_any_other_grid_goes_by_a_wall_clock(attributes):
    grid = type("SomeGrid", (), attributes)()
    assert isinstance(clock_of(grid), WallClock)


def test_a_wall_clock_is_a_clock():
    assert isinstance(WallClock(), Clock)
