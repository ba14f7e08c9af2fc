"""One simulated device: when it is there, and what it cannot be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.errors import ConfigurationError
from fedagent.simulation import NodeProfile, Reliability


def test_a_node_is_online_in_the_first_part_of_every_period():
    profile = NodeProfile(1.0, period_s=10.0, online_fraction=0.25)
    assert [t for t in range(20) if profile.is_online(t)] == [0, 1, 2, 10, 11, 12]
    assert profile.next_change_s(0.0) == 2.5
    assert profile.next_change_s(2.5) == 10.0
    assert profile.next_change_s(3.0) == 10.0


def test_the_phase_shifts_the_windows_to_earlier_times():
    profile = NodeProfile(1.0, period_s=10.0, online_fraction=0.5, phase_s=3.0)
    assert [t for t in range(10) if profile.is_online(t)] == [0, 1, 7, 8, 9]
    assert profile.next_change_s(0.0) == 2.0


@pytest.mark.parametrize(
    "profile",
    [
        NodeProfile(1.0),
        NodeProfile(1.0, period_s=10.0, online_fraction=1.0),
        NodeProfile(1.0, period_s=math.inf, online_fraction=0.5),
    ],
)
def test_a_node_without_windows_never_leaves(profile):
    assert profile.is_always_online
    assert profile.is_online(1e12)
    assert profile.next_change_s(1e12) == math.inf


@given(
    period_s=st.floats(0.01, 1e6),
    online_fraction=st.floats(0.01, 0.99),
    phase=st.floats(0.0, 1.0),
    periods=st.floats(0.0, 1e5),
    between=st.floats(0.0, 1.0),
)
def test_a_node_comes_and_goes_exactly_when_it_says(
    period_s, online_fraction, phase, periods, between
):
    profile = NodeProfile(
        1.0, period_s=period_s, online_fraction=online_fraction, phase_s=phase * period_s
    )
    now_s = periods * period_s
    is_online = profile.is_online(now_s)

    for _ in range(4):
        change_s = profile.next_change_s(now_s)
        assert now_s < change_s <= now_s + period_s * 1.001
        last_s = math.nextafter(change_s, 0.0)
        assert profile.is_online(last_s) == is_online
        assert profile.is_online(min(now_s + between * (change_s - now_s), last_s)) == is_online
        assert profile.is_online(change_s) != is_online
        now_s, is_online = change_s, not is_online


@given(online_fraction=st.floats(0.02, 0.98), phase_s=st.floats(0.0, 50.0))
def test_a_node_is_online_for_its_share_of_the_time(online_fraction, phase_s):
    profile = NodeProfile(1.0, period_s=50.0, online_fraction=online_fraction, phase_s=phase_s)
    moments = np.linspace(0.0, 500.0, 1000, endpoint=False)
    share = np.mean([profile.is_online(t) for t in moments])
    assert share == pytest.approx(online_fraction, abs=0.02)


@pytest.mark.parametrize("build", [Reliability, lambda **f: NodeProfile(1.0, **f)])
@pytest.mark.parametrize("name", ["failure_rate", "silence_rate", "online_fraction"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_share_outside_zero_to_one_is_refused_by_name(build, name, value):
    with pytest.raises(ConfigurationError, match=f"{name}={value}"):
        build(**{name: value})


@pytest.mark.parametrize("build", [Reliability, lambda **f: NodeProfile(1.0, **f)])
@pytest.mark.parametrize(
    ("field", "named"),
    [
        ({"online_fraction": 0.0}, "no node would ever come online"),
        ({"period_s": 0.0}, "period_s"),
        ({"period_s": math.nan}, "period_s"),
    ],
)
def test_windows_that_never_open_are_refused(build, field, named):
    with pytest.raises(ConfigurationError, match=named):
        build(**field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds_per_step", 0.0),
        ("seconds_per_step", math.nan),
        ("seconds_per_step", math.inf),
        ("latency_s", -1.0),
        ("latency_s", math.inf),
        ("download_bytes_per_s", 0.0),
        ("upload_bytes_per_s", math.nan),
        ("phase_s", -1.0),
    ],
)
def test_a_device_that_cannot_work_is_refused_by_name(field, value):
    with pytest.raises(ConfigurationError, match=f"NodeProfile: {field}={value}"):
        NodeProfile(**{"seconds_per_step": 1.0, field: value})
