"""Fleets: how their speeds are distributed, and when their nodes are there."""

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.errors import ConfigurationError
from fedagent.simulation import (
    Equal,
    Fleet,
    HalfNormal,
    Links,
    Lognormal,
    NodeProfile,
    Pareto,
    Reliability,
    Scripted,
    Straggler,
    TwoClass,
)

NODES = 4000
KINDS = [Equal, HalfNormal, Lognormal, Pareto, TwoClass, Straggler]


def speeds(fleet: Fleet) -> np.ndarray:
    return np.array(fleet.all_seconds_per_step())


# --- how fast -------------------------------------------------------------------------------------


def test_equal_devices_are_equal():
    assert set(speeds(Equal(num_nodes=50, seconds_per_step=0.25))) == {0.25}


def test_half_normal_devices_follow_the_absolute_normal_distribution():
    times = speeds(HalfNormal(num_nodes=NODES))
    assert times.min() >= 1e-3
    assert times.mean() == pytest.approx(math.sqrt(2 / math.pi), rel=0.06)
    assert np.quantile(times, 0.6827) == pytest.approx(1.0, rel=0.08)
    assert np.quantile(times, 0.9545) == pytest.approx(2.0, rel=0.08)


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_lognormal_devices_have_median_one_and_the_given_spread(sigma):
    logarithms = np.log(speeds(Lognormal(num_nodes=NODES, sigma=sigma)))
    assert np.median(logarithms) == pytest.approx(0.0, abs=0.08 * sigma)
    assert logarithms.std() == pytest.approx(sigma, rel=0.06)


@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_pareto_devices_have_a_heavy_tail_that_is_cut(alpha):
    times = speeds(Pareto(num_nodes=NODES, alpha=alpha, cap=8.0))
    assert times.min() >= 1.0
    assert times.max() == 8.0
    for slower_than in (2.0, 4.0, 7.99):
        share = (times > slower_than).mean()
        assert share == pytest.approx(slower_than**-alpha, abs=0.025)


@pytest.mark.parametrize(
    ("fast_fraction", "num_fast"), [(0.0, 0), (0.25, 25), (0.5, 50), (1.0, 100)]
)
def test_two_classes_of_devices_alternate_in_the_chosen_proportion(fast_fraction, num_fast):
    fleet = TwoClass(num_nodes=100, ratio=25.0, fast_fraction=fast_fraction, seconds_per_step=2.0)
    is_fast = speeds(fleet) == 2.0
    assert set(speeds(fleet)) <= {2.0, 50.0}
    assert is_fast.sum() == num_fast
    seen = np.cumsum(is_fast)
    assert np.abs(seen - fast_fraction * np.arange(1, 101)).max() < 1, "evenly spread"


def test_only_the_last_device_straggles():
    times = Straggler(num_nodes=5, ratio=1000.0, seconds_per_step=0.5).all_seconds_per_step()
    assert times == [0.5, 0.5, 0.5, 0.5, 500.0]


def test_scripted_devices_take_the_written_times_and_fields():
    fleet = Scripted(num_nodes=2, times=(3.0, 4.0), profiles={1: {"latency_s": 9.0}})
    assert fleet.all_seconds_per_step() == [3.0, 4.0]
    assert [fleet.profile(i).latency_s for i in range(2)] == [0.0, 9.0]


@pytest.mark.parametrize("kind", KINDS)
def test_seconds_per_step_scales_every_device(kind):
    assert np.allclose(
        speeds(kind(num_nodes=60, seconds_per_step=7.0)), 7.0 * speeds(kind(num_nodes=60))
    )


# --- what a profile depends on --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HalfNormal, Lognormal, Pareto])
def test_a_profile_follows_from_the_seed_and_the_index_alone(kind):
    windows = Reliability(period_s=100.0, online_fraction=0.5)
    fleet = kind(num_nodes=20, seed=1, reliability=windows)
    larger = kind(num_nodes=1000, seed=1, reliability=windows)
    backwards = [larger.profile(i) for i in reversed(range(20))][::-1]
    assert backwards == [fleet.profile(i) for i in range(20)]
    assert len({p.seconds_per_step for p in backwards}) == 20
    assert len({p.phase_s for p in backwards}) == 20


@pytest.mark.parametrize("kind", [HalfNormal, Lognormal, Pareto])
def test_another_seed_draws_another_fleet(kind):
    assert not set(speeds(kind(num_nodes=20, seed=1))) & set(speeds(kind(num_nodes=20, seed=2)))


def test_links_and_reliability_reach_every_profile():
    links = Links(latency_s=0.5, download_bytes_per_s=10.0, upload_bytes_per_s=5.0)
    reliability = Reliability(
        failure_rate=0.1, silence_rate=0.2, period_s=60.0, online_fraction=0.3
    )
    fleet = Equal(num_nodes=2, links=links, reliability=reliability)
    profile = dataclasses.asdict(fleet.profile(1))
    expected = {**dataclasses.asdict(links), **dataclasses.asdict(reliability)}
    assert {name: profile[name] for name in expected} == expected


def test_phases_spread_over_the_whole_period():
    fleet = Equal(num_nodes=NODES, reliability=Reliability(period_s=80.0, online_fraction=0.5))
    phases = np.array([fleet.profile(i).phase_s for i in range(NODES)])
    assert np.histogram(phases, bins=4, range=(0, 80.0))[0] == pytest.approx(NODES / 4, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fleet_of_a_million_costs_nothing_until_a_node_is_asked_for_work(kind):
    before = time.perf_counter()
    fleet = kind(num_nodes=1_000_000, reliability=Reliability(period_s=10.0, online_fraction=0.5))
    fleet.profile(999_999)
    assert time.perf_counter() - before < 0.1


# --- when a node is there -------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("fleet", "is_always_online"),
    [
        (Equal(), True),
        (Equal(reliability=Reliability(period_s=10.0)), True),
        (Equal(reliability=Reliability(period_s=10.0, online_fraction=0.5)), False),
        (Scripted(num_nodes=2, times=(1.0, 1.0), profiles={1: {"silence_rate": 1.0}}), True),
        (
            Scripted(
                num_nodes=2,
                times=(1.0, 1.0),
                profiles={1: {"period_s": 5.0, "online_fraction": 0.5}},
            ),
            False,
        ),
    ],
)
def test_a_fleet_knows_whether_anybody_ever_leaves(fleet, is_always_online):
    assert fleet.is_always_online == is_always_online


# --- what cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Equal(num_nodes=0), "num_nodes"),
        (lambda: Equal(seconds_per_step=0.0), "seconds_per_step"),
        (lambda: Equal(seconds_per_step=math.nan), "seconds_per_step"),
        (lambda: Equal(default_steps=0), "default_steps"),
        (lambda: Equal(jitter=-0.1), "jitter"),
        (lambda: Links(latency_s=-1.0), "latency_s"),
        (lambda: Links(download_bytes_per_s=0.0), "download_bytes_per_s"),
        (lambda: Links(upload_bytes_per_s=-5.0), "upload_bytes_per_s"),
        (lambda: Reliability(failure_rate=1.1), "failure_rate"),
        (lambda: Reliability(silence_rate=-0.1), "silence_rate"),
        (lambda: Reliability(online_fraction=1.5), "online_fraction"),
        (lambda: Reliability(online_fraction=0.0), "online"),
        (lambda: Reliability(period_s=0.0), "period_s"),
        (lambda: Scripted(num_nodes=3, times=(1.0, 2.0)), "2 times for num_nodes=3"),
        (lambda: Scripted(num_nodes=1, times=(0.0,)).profile(0), "seconds_per_step"),
        (lambda: TwoClass(ratio=-2.0).profile(0), "seconds_per_step"),
        (lambda: Straggler(num_nodes=2, ratio=0.0).profile(1), "seconds_per_step"),
    ],
)
def test_a_fleet_that_cannot_work_is_refused_by_name(build, named):
    with pytest.raises(ConfigurationError, match=named):
        build()
