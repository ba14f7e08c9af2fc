import sys

import numpy as np
import pytest

from clients.traffic_signals.data import load, simulation
from clients.traffic_signals.simulation import between, drive, longest_queue
from fedagent.errors import ConfigurationError, DataUnavailableError

pytest.importorskip("libsumo")


def test_every_signal_has_phases_with_lanes_and_sees_upstream_of_short_ones():
    signals = load("ingolstadt7")
    assert len(signals) == 7
    for signal in signals:
        assert len(signal.phases) == len(signal.lanes) == len(signal.upstream) >= 2
        assert all(signal.lanes)
        assert not any("y" in phase for phase in signal.phases)
    at_the_line = {lane for signal in signals for of in signal.lanes for lane in of}
    upstream = {lane for signal in signals for of in signal.upstream for lane in of}
    assert upstream
    assert not upstream & at_the_line, "what stands before another signal is that one's queue"
    first = next(s for s in signals if s.name == "gneJ143")
    assert "10425609#1_1" in first.lanes[2]
    assert any(lane.startswith("10425609#0_") for lane in first.upstream[2])


def test_yellow_comes_where_a_green_is_lost_and_nowhere_else():
    assert between("GGgrr", "rGrGG") == "yGyrr"


def test_the_controller_is_asked_every_five_seconds_and_a_change_costs_three():
    asked, now = [], []

    def alternating(due):
        for number, rows in due.items():
            if number == 0:
                asked.append(int(rows[:, 4].argmax()))
                now.append(float(rows[:, 5].max() * 60))
        return {k: 1 if k == 0 and len(asked) % 3 == 0 else int(rows[:, 4].argmax())
                for k, rows in due.items()}  # fmt: skip

    drive("cologne1", 3, alternating, 40)
    assert asked[:3] == [0, 0, 0]
    assert now[:3] == [0, 5, 10]
    assert asked[3:6] == [1, 1, 1], "asked again after 3 s of yellow and 5 s of green"
    assert now[3:5] == [5, 10]


def test_vehicles_that_never_get_in_count_as_on_their_way():
    signals = load("cologne1")
    stuck = drive("cologne1", 3, lambda due: dict.fromkeys(due, 0), 1200)
    moving = drive("cologne1", 3, longest_queue, 1200)
    assert len(signals) == 1
    assert stuck["num-examples"] == pytest.approx(moving["num-examples"], rel=0.03)
    assert stuck["not-arrived"] > 3 * moving["not-arrived"]
    assert stuck["trip-time"] > 2 * moving["trip-time"]
    assert stuck["trip-time-arrived"] < stuck["trip-time"], "what SUMO's trips leave out"


def test_the_longest_queue_gets_green_and_keeps_it_on_a_tie():
    rows = np.zeros((3, 6), np.float32)
    rows[:, 0] = [4, 4, 3]
    rows[1, 4] = 1
    assert longest_queue({7: rows}) == {7: 1}
    rows[0, 0] = 5
    assert longest_queue({7: rows}) == {7: 0}


def test_an_hour_is_the_same_for_the_same_seed():
    first, again, other = (drive("cologne1", seed, longest_queue, 600) for seed in (5, 5, 6))
    assert first == again != other


def test_a_second_simulation_in_a_process_is_refused():
    load("cologne1")
    with (
        simulation("cologne1", 1),
        pytest.raises(ConfigurationError, match="one simulation per process"),
    ):
        drive("cologne1", 1, None, 10)
    assert drive("cologne1", 1, None, 10)["num-examples"] > 0


def test_without_the_simulator_the_pip_line_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "libsumo", None)
    with (
        pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[traffic_signals\]"'),
        simulation("cologne1", 1),
    ):
        pass
