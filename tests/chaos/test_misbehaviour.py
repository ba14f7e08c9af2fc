"""Clients' code that does whatever it likes on a real node: every job is answered for, and once."""

import json
import os
import time
from pathlib import Path

import pytest

from benchmarks.reliability.real_fleet import Fleet
from fedagent._flower import ErrorCode
from tests.chaos.misbehaving.misbehaving.deeds import (
    DEATHS,
    DEEDS,
    HARMLESS,
    NO_REPLIES,
    RAISES,
    WITHOUT_END,
)

JOB_LIMIT_S = 2.0
SLACK_S = 8.0  # of a machine that does other things
APP = Path(__file__).parent / "misbehaving"
UNANSWERED = {"code": None, "square": None}


def names(deeds):
    return [deed.__name__ for deed in deeds]


def processes_of(folder):
    """Return the processes that were started with this folder as FLWR_HOME, by their programs."""
    word, found = f"FLWR_HOME={folder}\0".encode(), {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word in Path(f"/proc/{entry}/environ").read_bytes() + b"\0":
                found[int(entry)] = Path(f"/proc/{entry}/cmdline").read_text()
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Do each deed on one node, and an honest job after it; return what came back, by deed."""
    folder = tmp_path_factory.mktemp("misbehaviour")
    fleet = Fleet(folder, app=APP, deeds=" ".join(DEEDS), patience_s=JOB_LIMIT_S + 2 * SLACK_S)
    notes = folder / "answers.jsonl"
    try:
        fleet.start_superlink()
        fleet.start_node(0, flags=(f"--job-limit={JOB_LIMIT_S}",))
        run = fleet.start_run()
        fleet.wait(lambda: run.poll() is not None, "the run ends", 600)
        warm = [c for c in processes_of(folder).values() if "warm_node.server" in c]
    finally:
        fleet.end()
    until_s = time.monotonic() + 20
    while (left := processes_of(folder)) and time.monotonic() < until_s:
        time.sleep(0.1)
    lines = notes.read_text().splitlines() if notes.exists() else []
    return {
        "by deed": {done["deed"]: done for done in map(json.loads, lines)},
        "warm": warm,
        "left": left,
        "log": (folder / "node-0.log").read_text(),
    }


def answer(answers, deed):
    done = answers["by deed"][deed]
    assert done["next"].get("square") == done["number"] ** 2, "the honest job after it"
    return UNANSWERED | done["itself"]


@pytest.mark.slow
@pytest.mark.parametrize("deed", names(WITHOUT_END))
def test_a_job_without_end_is_ended_at_the_limit(answers, deed):
    came = answer(answers, deed)
    assert came["code"] == ErrorCode.CLIENT_APP_CRASHED
    assert JOB_LIMIT_S < came["seconds"] < JOB_LIMIT_S + SLACK_S


@pytest.mark.slow
@pytest.mark.parametrize("deed", names(DEATHS))
def test_a_job_whose_process_dies_is_one_failure_at_once(answers, deed):
    came = answer(answers, deed)
    assert came["code"] == ErrorCode.CLIENT_APP_CRASHED
    assert came["seconds"] < SLACK_S


@pytest.mark.slow
@pytest.mark.parametrize("deed", names(RAISES + NO_REPLIES))
def test_what_is_raised_or_no_reply_is_one_failure_in_words(answers, deed):
    came = answer(answers, deed)
    assert came["code"] == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert came["reason"].isprintable()
    assert 10 < len(came["reason"]) < 2000
    assert came["seconds"] < SLACK_S


@pytest.mark.slow
@pytest.mark.parametrize("deed", names(HARMLESS))
def test_what_a_job_does_to_its_process_hurts_neither_its_answer_nor_the_next(answers, deed):
    came = answer(answers, deed)
    assert came["square"] == answers["by deed"][deed]["number"] ** 2
    assert came["seconds"] < SLACK_S


@pytest.mark.slow
def test_the_log_of_the_node_says_which_jobs_were_ended_and_holds_no_text_of_theirs(answers):
    assert answers["log"].count(f"longer than --job-limit={JOB_LIMIT_S:g}") == len(WITHOUT_END)
    assert "\nfedagent: the run is completed" not in answers["log"]
    assert "\x1b[2J" not in answers["log"]
    assert "x" * 1000 not in answers["log"]


@pytest.mark.slow
def test_no_process_of_a_job_outlives_it_or_its_node(answers):
    assert len(answers["warm"]) == 1
    assert answers["left"] == {}
