"""at_work.json: what every node does, while a run goes on."""

import json

import pytest

from fedagent import FedBuff
from fedagent.report import Recorder, at_work
from fedagent.report.at_work import AT_WORK_FILE, AtWork, read_at_work
from fedagent.simulation import Reliability, Scripted
from fedagent.stopping import Metric
from fedagent.update import Dispatch, Kind
from tests import toy
from tests.report.conftest import ABOUT


def dispatch(number: int, node: int, kind: Kind = Kind.TRAIN, steps: int | None = 8) -> Dispatch:
    return Dispatch(f"m{number}", node, 1200, "", 10.0, 99.0, kind, local_steps=steps)


@pytest.fixture
def every_time(monkeypatch):
    monkeypatch.setattr(at_work, "EVERY_S", 0.0)


def test_the_file_says_in_words_what_has_begun_and_not_ended(tmp_path, every_time):
    noted = AtWork(tmp_path)
    for one in (
        dispatch(1, 5),
        dispatch(2, 5),
        dispatch(3, 6, Kind.EVALUATE, None),
        dispatch(4, 7),
    ):
        noted.begin(one)
    noted.end(dispatch(4, 7))
    noted.end(dispatch(9, 9))  # of which nobody was told
    noted.write(12.5)
    job = "trains version 1,200, 8 steps, for 2.5 s"
    assert read_at_work(tmp_path) == (
        12.5,
        {"5": [job, job], "6": ["evaluates version 1,200, for 2.5 s"]},
    )
    noted.clear()
    assert read_at_work(tmp_path) == (0.0, {})


def test_it_is_written_once_a_second_and_no_more(tmp_path):
    noted = AtWork(tmp_path)
    noted.write(1.0)
    noted.write(2.0)
    assert read_at_work(tmp_path)[0] == 1.0


def test_what_was_in_flight_is_part_of_a_checkpoint(tmp_path, every_time):
    noted, resumed = AtWork(tmp_path), AtWork(tmp_path)
    noted.begin(dispatch(1, 5))
    resumed.load_state_dict(json.loads(json.dumps(noted.state_dict())))
    resumed.write(11.0)
    assert list(read_at_work(tmp_path)[1]) == ["5"]


def test_a_run_names_whoever_has_work_and_nobody_when_it_is_over(tmp_path, every_time):
    seen, folder = [], tmp_path / "run"

    class Probe(toy.Log):
        def on_settled(self, statistics, settlement):
            _, doing = read_at_work(folder)
            named = sorted(int(node) for node, jobs in doing.items() for _ in jobs)
            in_flight = sorted(one.node_id for one in strategy.proxy._ledger.in_flight())
            seen.append((named, in_flight))

    metric = Metric("error", "min", "clients")
    recorder = Recorder(folder, metric, None, ABOUT)
    strategy = FedBuff(buffer_size=2, concurrency=3, callbacks=[recorder, Probe()])
    fleet = Scripted(
        num_nodes=5, times=(1.0, 2.0, 3.0, 5.0, 8.0), reliability=Reliability(failure_rate=0.2)
    )
    toy.run(strategy, fleet, rounds=6)
    assert len(seen) > 12
    assert all(named == in_flight for named, in_flight in seen)
    assert any(len(named) > 1 for named, _ in seen)
    assert not (folder / AT_WORK_FILE).exists()
