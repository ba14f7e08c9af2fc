"""jobs.jsonl: a line for every job that was done, however long the run."""

import json
import logging

import pytest

from fedagent.callbacks import Settlement
from fedagent.errors import ConfigurationError
from fedagent.report import Recorder, jobs
from fedagent.report.jobs import JOBS_FILE, Job, read_jobs
from fedagent.statistics import Statistics
from fedagent.update import Dispatch, Kind, Outcome
from tests.report.conftest import ABOUT, ACCURACY, COMPLETED, model

NODE = 2**63 + 5


def settled(outcome=Outcome.APPLIED, kind=Kind.TRAIN, duration_s=2.5, **known) -> Settlement:
    dispatch = Dispatch("m", NODE, 3, "", 0.0, 9.0, kind, local_steps=4, bytes_down=100)
    return Settlement(dispatch, outcome, duration_s=duration_s, bytes_up=60, **known)


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    monkeypatch.setattr("fedagent.report.recorder.plot_runs", lambda runs, path: None)

    def begun(saved: dict | None = None) -> Recorder:
        recorder = Recorder(tmp_path / "run", ACCURACY, None, ABOUT, overwrite=True)
        if saved:
            recorder.load_state_dict(json.loads(json.dumps(saved)))
        recorder.on_start(Statistics())
        return recorder

    return begun


def test_every_train_job_is_a_line_and_those_that_were_done_measure_their_nodes(recorder, tmp_path):
    watching = recorder()
    for settlement in (
        settled(staleness=2, num_examples=30.0, discount=0.5),
        settled(Outcome.REJECTED, duration_s=3.0, reason="non-finite"),
        settled(Outcome.FAILED),
        settled(Outcome.EXPIRED),
        settled(kind=Kind.EVALUATE),
    ):
        watching.on_settled(Statistics(now_s=7.5), settlement)
    watching.on_end(Statistics(), COMPLETED, model)
    known = {"ended_s": 7.5, "version": 3}
    assert read_jobs(tmp_path) == [
        Job(str(NODE), 4, 2.5, 100, 60, staleness=2, num_examples=30.0, discount=0.5, **known),
        Job(str(NODE), 4, 3.0, 100, 60, "rejected", "non-finite", **known),
    ]
    lines = [json.loads(line) for line in (tmp_path / "run" / JOBS_FILE).read_text().splitlines()]
    assert lines[0]["node_id"] == str(NODE)
    assert [line["outcome"] for line in lines] == ["applied", "rejected", "failed", "expired"]


def test_lines_come_with_the_next_version(recorder, tmp_path):
    watching = recorder()
    watching.on_settled(Statistics(), settled())
    assert not (tmp_path / "run" / JOBS_FILE).exists()
    watching.on_version(Statistics(version=1))
    assert len(read_jobs(tmp_path)) == 1


def test_a_new_run_forgets_the_jobs_of_the_one_before_and_a_resumed_one_keeps_its_own(
    recorder, tmp_path
):
    saved = None
    for goes_on, expected in ((False, 1), (True, 2), (True, 3), (False, 1)):
        watching = recorder(saved if goes_on else None)
        watching.on_settled(Statistics(), settled())
        watching.on_version(Statistics())
        assert len(read_jobs(tmp_path)) == expected
        saved = watching.state_dict()


def test_a_resumed_run_keeps_the_jobs_that_wait_and_forgets_those_after_its_checkpoint(
    recorder, tmp_path
):
    watching = recorder()
    watching.on_settled(Statistics(), settled(duration_s=1.0))
    saved = watching.state_dict()
    watching.on_settled(Statistics(), settled(duration_s=9.0))
    watching.on_version(Statistics())
    recorder(saved).on_version(Statistics())
    assert [job.duration_s for job in read_jobs(tmp_path)] == [1.0]


def test_a_long_run_writes_its_first_jobs_and_says_so(recorder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(jobs, "MOST_JOBS", 3)
    caplog.set_level(logging.INFO, "flwr.fedagent")
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    saved = None
    for version in (0, 1):
        watching = recorder(saved)
        for duration_s in (1.0, 2.0):
            watching.on_settled(Statistics(), settled(duration_s=duration_s + 2 * version))
        watching.on_version(Statistics(version=version + 1))
        saved = watching.state_dict()
    assert [job.duration_s for job in read_jobs(tmp_path)] == [1.0, 2.0, 3.0]
    assert "later ones are not written" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"node_id": "1"}',
        '{"node_id": "1", "local_steps": 0, "duration_s": 1, "bytes_down": 1, "bytes_up": 1}',
        '{"node_id": "1", "local_steps": 1, "duration_s": -1, "bytes_down": 1, "bytes_up": 1}',
        '{"node_id": "1", "local_steps": 1, "duration_s": null, "bytes_down": 1, "bytes_up": 1}',
    ],
)
def test_a_line_that_is_no_job_is_named(tmp_path, line):
    good = '{"node_id": "1", "local_steps": null, "duration_s": 1, "bytes_down": 1, "bytes_up": 1}'
    (tmp_path / JOBS_FILE).write_text(f"{good}\n{line}\n")
    with pytest.raises(ConfigurationError, match=f"{JOBS_FILE}, line 2, is no job"):
        read_jobs(tmp_path)


@pytest.mark.parametrize(("folder", "what"), [(".", "holds no jobs.jsonl"), ("x", "is not a fold")])
def test_a_folder_without_jobs_is_named(tmp_path, folder, what):
    with pytest.raises(ConfigurationError, match=f"{what}.*output folder of a run"):
        read_jobs(tmp_path / folder)
