"""Fleets: how their speeds are distributed, what a profile depends on, and what is refused."""

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
    Pareto,
    Phones,
    Reliability,
    Scripted,
    Straggler,
    TwoClass,
)

NODES = 4000
KINDS = [Equal, HalfNormal, Lognormal, Pareto, Phones, TwoClass, Straggler]


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


@pytest.mark.parametrize("kind", [HalfNormal, Lognormal, Pareto, Phones])
def test_a_profile_follows_from_the_seed_and_the_index_alone(kind):
    windows = Reliability(period_s=100.0, online_fraction=0.5)
    fleet = kind(num_nodes=20, seed=1, reliability=windows)
    larger = kind(num_nodes=1000, seed=1, reliability=windows)
    backwards = [larger.profile(i) for i in reversed(range(20))][::-1]
    assert backwards == [fleet.profile(i) for i in range(20)]
    assert len({p.seconds_per_step for p in backwards}) == 20
    assert len({p.phase_s for p in backwards}) == 20


@pytest.mark.parametrize("kind", [HalfNormal, Lognormal, Pareto, Phones])
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


# --- how long a job takes -------------------------------------------------------------------------

SPREAD = 0.7
MEAN_AND_MEDIAN = {
    "lognormal": (math.exp(SPREAD**2 / 2), 1.0),
    "half_normal": (SPREAD * math.sqrt(2 / math.pi), 0.6745 * SPREAD),
    "shifted_exponential": (1.0 + SPREAD, 1.0 + SPREAD * math.log(2)),
}


@pytest.mark.parametrize("kind", MEAN_AND_MEDIAN)
def test_a_jobs_time_follows_the_chosen_distribution(kind):
    fleet = Equal(jitter=SPREAD, jitter_kind=kind)
    factors = [fleet.job_factor(fleet.generator(0, job)) for job in range(1, 1 + NODES)]
    mean, median = MEAN_AND_MEDIAN[kind]
    assert np.mean(factors) == pytest.approx(mean, rel=0.05)
    assert np.median(factors) == pytest.approx(median, rel=0.05)
    assert min(factors) > 0.0


@pytest.mark.parametrize("kind", MEAN_AND_MEDIAN)
def test_without_jitter_every_job_takes_its_nodes_time(kind):
    fleet = Equal(jitter_kind=kind)
    assert {fleet.job_factor(fleet.generator(0, job)) for job in range(9)} == {1.0}


def test_a_distribution_that_is_unknown_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="half_normal"):
        Equal(jitter_kind="halfnormal")


# --- what cannot work -----------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "field",
    [
        {"num_nodes": 0},
        {"num_nodes": 2.5},
        {"seconds_per_step": 0.0},
        {"seconds_per_step": NAN},
        {"seconds_per_step": INF},
        {"default_steps": 0},
        {"default_steps": -3},
        {"jitter": -0.1},
        {"jitter": NAN},
        {"jitter": 1e3},
        {"seed": -1},
    ],
    ids=str,
)
def test_whatever_its_kind_a_fleet_that_cannot_work_is_refused_by_name(kind, field):
    ((name, value),) = field.items()
    with pytest.raises(ConfigurationError, match=f"{kind.__name__}: {name}={value}"):
        kind(**field)


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (Lognormal, "sigma", [-1.0, 1e3, NAN, INF]),
        (Pareto, "alpha", [0.0, -1.0, NAN]),
        (Pareto, "cap", [0.5, NAN, INF]),
        (TwoClass, "ratio", [-1.0, 0.0, NAN, INF]),
        (TwoClass, "fast_fraction", [2.0, -0.1, NAN]),
        (Straggler, "ratio", [-1.0, 0.0, NAN]),
        (Links, "latency_s", [-1.0, NAN, INF]),
        (Links, "download_bytes_per_s", [0.0, -1.0, NAN]),
        (Links, "upload_bytes_per_s", [0.0, -5.0, NAN]),
    ],
)
def test_what_is_particular_to_a_kind_is_checked_at_birth_too(kind, name, values):
    for value in values:
        with pytest.raises(ConfigurationError, match=f"{kind.__name__}: {name}={value}"):
            kind(**{name: value})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_nodes": 3, "times": (1.0, 2.0)}, "2 times for num_nodes=3"),
        ({"num_nodes": 1, "times": (0.0,)}, "times=0.0"),
        ({"num_nodes": 2, "times": (1.0, NAN)}, "times=nan"),
        ({"num_nodes": 1, "profiles": {0: {"latency": 1.0}}}, r"\['latency'\]"),
        ({"num_nodes": 1, "profiles": {1: {"latency_s": 1.0}}}, r"profiles\[1\]"),
        ({"num_nodes": 1, "profiles": {0: {"latency_s": -1.0}}}, "latency_s=-1.0"),
    ],
)
def test_a_script_with_a_mistake_is_refused_by_name(fields, named):
    with pytest.raises(ConfigurationError, match=named):
        Scripted(**fields)


@given(
    num_nodes=st.integers(-2, 3),
    seconds_per_step=st.floats(),
    sigma=st.floats(),
    latency_s=st.floats(),
)
def test_a_fleet_that_is_accepted_has_devices_that_can_work(
    num_nodes, seconds_per_step, sigma, latency_s
):
    try:
        fleet = Lognormal(
            num_nodes=num_nodes,
            seconds_per_step=seconds_per_step,
            sigma=sigma,
            links=Links(latency_s),
        )
    except ConfigurationError:
        usable = num_nodes >= 1 and 0 < seconds_per_step < INF
        assert not (usable and 0 <= sigma <= 20 and 0 <= latency_s < INF)
        return
    if 1e-100 < seconds_per_step < 1e100:
        profile = fleet.profile(num_nodes - 1)
        assert 0 < profile.seconds_per_step < INF
        assert profile.latency_s == latency_s
