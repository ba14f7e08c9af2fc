"""Phones: their speeds and links follow the table of quantiles, and the table what was measured."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedagent.errors import ConfigurationError
from fedagent.simulation import Equal, Fleet, Links, Lognormal, PhoneLinks, Phones
from fedagent.simulation.phones import _table

NODES = 4000
TENTHS = np.linspace(0.1, 0.9, 9)


def mbit_per_s(fleet: Fleet, nodes: int = NODES) -> np.ndarray:
    return np.array([fleet.profile(i).download_bytes_per_s * 8e-6 for i in range(nodes)])


def test_speeds_and_bandwidths_follow_the_quantiles_of_the_table():
    fleet = Phones(num_nodes=NODES)
    shares, speeds, rates = map(np.array, _table())
    for drawn, column in (
        (1 / np.array(fleet.all_seconds_per_step()), speeds),
        (mbit_per_s(fleet), rates),
    ):
        assert np.quantile(drawn, TENTHS) == pytest.approx(
            np.interp(TENTHS, shares, column), rel=0.1
        )
        assert column[0] <= drawn.min() < drawn.max() <= column[-1]


def test_the_median_phone_takes_the_nominal_time():
    times = Phones(num_nodes=NODES, seconds_per_step=3.0).all_seconds_per_step()
    assert np.median(times) == pytest.approx(3.0, rel=0.06)


def test_links_are_drawn_whatever_the_speed():
    fleet = Phones(num_nodes=NODES)
    speeds = 1 / np.array(fleet.all_seconds_per_step())
    assert abs(np.corrcoef(speeds, mbit_per_s(fleet))[0, 1]) < 0.05


@pytest.mark.parametrize("other", [Equal(seed=3), Lognormal(seed=3, num_nodes=9), Phones(seed=3)])
def test_a_nodes_links_follow_from_the_seed_and_the_index_alone(other):
    fleet = Equal(seed=3, links=PhoneLinks())
    assert set(mbit_per_s(fleet, 9)) == set(mbit_per_s(replace(other, links=PhoneLinks()), 9))
    assert len(set(mbit_per_s(fleet, 9))) == 9
    assert not set(mbit_per_s(fleet, 9)) & set(mbit_per_s(replace(fleet, seed=4), 9))


def test_real_links_leave_the_speeds_of_any_fleet_as_they_are():
    fleet = Lognormal(num_nodes=20, seed=1)
    assert replace(fleet, links=PhoneLinks()).all_seconds_per_step() == fleet.all_seconds_per_step()


def test_no_link_is_faster_than_the_one_it_goes_through():
    links = PhoneLinks(latency_s=0.5, download_bytes_per_s=2e5, upload_bytes_per_s=1e5)
    profiles = [Phones(links=links).profile(i) for i in range(100)]
    assert max(p.download_bytes_per_s for p in profiles) == 2e5
    assert max(p.upload_bytes_per_s for p in profiles) == 1e5
    assert len({p.download_bytes_per_s for p in profiles}) > 30
    assert {p.latency_s for p in profiles} == {0.5}


def test_uploads_are_as_fast_as_downloads_or_a_share_of_them():
    even, slow = (Equal(links=PhoneLinks(upload_share=s)).profile(7) for s in (1.0, 0.25))
    assert even.upload_bytes_per_s == even.download_bytes_per_s == slow.download_bytes_per_s
    assert slow.upload_bytes_per_s == 0.25 * even.upload_bytes_per_s


def test_phones_without_their_links():
    assert Phones(links=Links()).profile(0).download_bytes_per_s == np.inf


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_an_upload_that_cannot_be_is_refused_by_name(value):
    with pytest.raises(ConfigurationError, match="PhoneLinks: upload_share"):
        PhoneLinks(upload_share=value)


def test_the_table_is_what_was_measured():
    path = Path(os.environ.get("FEDAGENT_DATA", "/nowhere")) / "device_traces.npz"
    if not path.is_file():
        pytest.skip("FEDAGENT_DATA names no folder with device_traces.npz")
    data = np.load(path)
    scores, means = data["phone_cpu_float_score"].astype(float), []
    for name in ("norway_3g", "oboe", "fcc", "puffer"):
        ends = np.cumsum(data[f"{name}_lengths"])[:-1]
        means += [part.mean() for part in np.split(data[name].astype(float), ends)]
    assert (len(scores), len(means)) == (333, 1070)
    shares, speeds, rates = _table()
    assert speeds == pytest.approx(np.quantile(scores / np.median(scores), shares), abs=6e-4)
    assert rates == pytest.approx(np.quantile(means, shares), abs=6e-4)
