"""Devices from a file: which node is which, and transfers and absences as they are written."""

from collections import Counter
from pathlib import Path

import pytest

from fedagent import FedBuff
from fedagent._flower import ErrorCode
from fedagent.errors import ConfigurationError
from fedagent.nodes.device_file import parse
from fedagent.simulation import (
    Equal,
    Geography,
    Links,
    PhoneLinks,
    Phones,
    Reliability,
    Trace,
)
from fedagent.wire.records import digest
from tests.simulation.apps import grid_of, request
from tests.toy import run

# A message has 136 bytes, in either direction: two float32 and their header.
HEAD = "device,time_s,seconds_per_step,download_bytes_per_s,upload_bytes_per_s,online"


@pytest.fixture
def trace(tmp_path: Path):
    def written(*rows: str, num_nodes: int = 1, **fields) -> Trace:
        path = tmp_path / "devices.csv"
        path.write_text("\n".join([HEAD, *rows]))
        return Trace(path=str(path), num_nodes=num_nodes, **fields)

    return written


THREE = ("a,0,1,10,20,", "b,0,2,30,40,", "c,0,4,50,60,")


# --- which node is which --------------------------------------------------------------------------


def test_nodes_are_the_files_devices_in_its_order(trace):
    fleet = trace(*THREE, num_nodes=3)
    assert fleet.all_seconds_per_step() == [1.0, 2.0, 4.0]
    assert [fleet.profile(i).downloads.at(0.0) for i in range(3)] == [10.0, 30.0, 50.0]
    assert [fleet.profile(i).uploads.at(0.0) for i in range(3)] == [20.0, 40.0, 60.0]
    assert trace(*THREE, num_nodes=2, seconds_per_step=3.0).all_seconds_per_step() == [3.0, 6.0]


def test_further_nodes_are_drawn_and_follow_from_the_seed_and_the_index_alone(trace):
    times = trace(*THREE, num_nodes=600, seed=1).all_seconds_per_step()
    assert times[:3] == [1.0, 2.0, 4.0]
    assert all(150 < count < 250 for count in Counter(times).values())
    assert trace(*THREE, num_nodes=60, seed=1).all_seconds_per_step() == times[:60]
    assert trace(*THREE, num_nodes=600, seed=2).all_seconds_per_step() != times


def test_a_device_is_one_whole(trace):
    fleet = trace(*THREE, num_nodes=60)
    profiles = map(fleet.profile, range(60))
    known = {(p.seconds_per_step, p.downloads.at(0.0), p.uploads.at(0.0)) for p in profiles}
    assert known == {(1.0, 10.0, 20.0), (2.0, 30.0, 40.0), (4.0, 50.0, 60.0)}


def test_the_example_of_the_documentation_is_read_as_it_says():
    text = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
    example = text.partition("```\ndevice,")[2].partition("```")[0]
    phone, tablet = parse(f"device,{example}", "simulation.md")
    assert phone.downloads.period_s == 3600.0
    assert [phone.downloads.at(t) for t in (0, 60, 90, 3660)] == [250000, 0, 250000, 0]
    assert [phone.presence.at(t) for t in (0, 89, 90, 3599, 3600)] == [1, 1, 0, 0, 1]
    assert (tablet.seconds_per_step, tablet.is_always_online) == (2.0, True)


# --- transfers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected_s"),
    [
        (["a,0,0.5,34,17,"], 4.0 + 0.5 + 8.0),
        (["a,0,0.5,,,"], 0.5),
        (["a,0,0.5,34,,", "a,2,,17,,"], 2.0 + 68 / 17 + 0.5),
        (["a,0,0.5,34,,", "a,1,,0,,", "a,11,,51,,"], 11.0 + 102 / 51 + 0.5),
        (["a,0,0.5,,17,", "a,2.5,,,0,", "a,3.5,,,34,"], 3.5 + (136 - 34) / 34),
        (["a,0,0.5,34,,", "a,1,,0,,", "a,10,,,,"], 30.0 + 1.0 + 0.5),
    ],
)
def test_a_transfer_goes_as_fast_as_the_bandwidth_of_each_moment(trace, rows, expected_s):
    grid = grid_of(trace(*rows))
    list(grid.send_and_receive([request(0)]))
    assert grid.clock.now() == expected_s


def test_transfers_of_one_node_come_one_after_the_other(trace):
    grid = grid_of(trace("a,0,1,136,,", "a,1,,0,,", "a,5,,68,,"))
    list(grid.send_and_receive([request(0), request(0)]))
    assert grid.clock.now() == 5.0 + 136 / 68 + 1.0  # the second one is downloaded after the pause


def test_no_transfer_is_faster_than_the_link_it_goes_through(trace):
    rows = "a,0,1,34,1000,", "a,2,,1000,,"
    grid = grid_of(trace(*rows, links=Links(0.25, 68.0, 17.0)))
    list(grid.send_and_receive([request(0)]))
    assert grid.clock.now() == 0.25 + (2.0 + 68 / 68) + 1.0 + 136 / 17
    narrow = trace(*rows, links=PhoneLinks(download_bytes_per_s=5.0)).profile(0)
    assert narrow.downloads.values == (5.0, 5.0)


def test_links_between_regions_narrow_it_too(trace):
    class Far:
        count = 2

        def of(self, node_id, attributes):
            return 1

    fleet = trace(*THREE, num_nodes=3, geography=Geography(Far(), Links(1.5, 25.0, 25.0)))
    assert [fleet.profile(i).downloads.at(0.0) for i in range(3)] == [10.0, 25.0, 25.0]
    assert fleet.profile(0).latency_s == 1.5


def test_a_bandwidth_that_stays_at_zero_is_refused(trace):
    with pytest.raises(ConfigurationError, match=r"devices.csv, line 3, column download_bytes_per"):
        trace("a,0,1,10,,", "a,5,,0,,")


# --- when devices are there -----------------------------------------------------------------------


def test_a_device_is_there_when_the_file_says(trace):
    fleet = trace("a,0,1,,,1", "a,4,,,,0", "a,10,,,,", "b,0,1,,,", num_nodes=2)
    grid = grid_of(fleet)
    assert not fleet.is_always_online
    profile = fleet.profile(0)
    assert [t for t in range(20) if profile.is_online(t)] == [0, 1, 2, 3, 10, 11, 12, 13]
    assert [profile.next_change_s(t) for t in (0.0, 4.0, 5.0)] == [4.0, 10.0, 10.0]
    assert fleet.profile(1).is_always_online
    [reply] = grid.send_and_receive([request(0, **{"local-steps": 6})])
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
    assert grid.clock.now() == 4.0
    assert list(grid.get_node_ids()) == [1002]


def test_only_the_devices_that_are_nodes_come_and_go(trace):
    rows = "b,0,1,,,", "a,0,1,,,1", "a,4,,,,0", "a,10,,,,"
    assert trace(*rows, num_nodes=1).is_always_online
    assert not trace(*rows, num_nodes=2).is_always_online


def test_two_words_on_when_nodes_are_there_are_one_too_many(trace):
    windows = Reliability(period_s=10.0, online_fraction=0.5)
    assert not trace("a,0,1,,,", reliability=windows).is_always_online
    with pytest.raises(ConfigurationError, match="keep one of them"):
        trace("a,0,1,,,1", "a,4,,,,0", "a,10,,,,", reliability=windows)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none.csv cannot be read .*fedagent calibrate"):
        Trace(path=str(tmp_path / "none.csv"))


# --- the same bytes, whoever works ----------------------------------------------------------------

BUSY = ("a,0,1,400,200,1", "a,7,,0,,", "a,9,,800,,0", "a,11,,,,1", "a,20,,,,", "b,0,3,300,,")


@pytest.mark.parametrize("name", ["trace", "phones", "half_normal"])
def test_a_seed_gives_the_same_bytes_for_any_number_of_workers(trace, name):
    fleet = {
        "trace": trace(*BUSY, num_nodes=6, jitter=0.5, jitter_kind="half_normal"),
        "phones": Phones(num_nodes=6),
        "half_normal": Equal(num_nodes=6, jitter=1.0, jitter_kind="half_normal"),
    }[name]

    def outcome(workers: int) -> tuple[str, float]:
        done = run(FedBuff(buffer_size=2, concurrency=4), fleet, workers=workers)
        return digest(done.result.arrays), done.virtual_time_s

    assert outcome(0) == outcome(2) == outcome(1)
