"""Log lines that a machine can read, and that say what happened."""

import io
import json
import logging
import sys
from datetime import datetime

import pytest
from flwr.app import ArrayRecord, MetricRecord

from fedagent import FedBuff
from fedagent.callbacks import JsonLog
from fedagent.errors import ConfigurationError
from fedagent.simulation import Lognormal
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd
from tests.toy import Log, client_app, run


def failing_for_one(partition, reply):
    if partition == 1:
        raise ValueError("broken sensor")


def lines_of(level: str, **arguments) -> tuple[list[dict], Log]:
    stream, log = io.StringIO(), Log()
    strategy = FedBuff(
        concurrency=4, fraction_evaluate=0.0, callbacks=[JsonLog(level, stream), log]
    )
    try:
        run(
            strategy,
            Lognormal(num_nodes=8),
            client=client_app(failing_for_one),
            **{"rounds": 4, **arguments},
        )
    finally:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return lines, log


def events(lines: list[dict], name: str) -> list[dict]:
    return [line for line in lines if line["event"] == name]


def test_every_event_is_a_line():
    lines, log = lines_of(
        "debug", evaluate_fn=lambda v, arrays: MetricRecord({"loss": 1.0, "list": [1.0]})
    )

    assert lines[0]["event"] == "start"
    assert [line["version"] for line in events(lines, "version")] == [1, 2, 3, 4]
    assert [(e["version"], e["source"], e["metrics"]) for e in events(lines, "evaluation")] == [
        (version, "server", {"loss": 1.0}) for version in range(5)
    ]
    settled = [
        (s["node_id"], s["outcome"], s["reason"], s["staleness"], s["duration_s"])
        for s in events(lines, "settled")
    ]
    assert settled == [
        (str(s.dispatch.node_id), s.outcome, s.reason, s.staleness, s.duration_s)
        for s in log.settlements
    ]
    (end,) = events(lines, "end")
    assert (end["kind"], end["detail"]) == (log.end.kind, log.end.detail)
    assert end["dispatches"] == log.statistics.by_outcome()
    assert end["num_updates"] == 16
    for line in lines:
        assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    ("level", "outcomes"),
    [
        ("debug", {"applied", "failed", "expired"}),
        ("info", {"failed", "expired"}),
        ("warning", {"failed"}),
        ("error", set()),
    ],
)
def test_level_leaves_out_what_is_below(level, outcomes):
    lines, _ = lines_of(level, rounds=8)

    assert {line["outcome"] for line in events(lines, "settled")} == outcomes
    assert bool(events(lines, "version")) == (level in ("debug", "info"))


def test_run_that_fails_ends_with_an_error_line():
    stream = io.StringIO()

    def evaluate(version, arrays):
        raise ZeroDivisionError("evaluate_fn is broken")

    strategy = FedBuff(concurrency=4, fraction_evaluate=0.0, callbacks=[JsonLog("error", stream)])
    with pytest.raises(ZeroDivisionError):
        run(strategy, Lognormal(num_nodes=8), evaluate_fn=evaluate)

    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["level"], line["event"]) == ("error", "end")
    assert line["kind"] == "failed"
    assert line["detail"].startswith("ZeroDivisionError")


def test_flowers_log_lines_are_json_while_the_run_lasts():
    flower = logging.getLogger("flwr")
    before = list(flower.handlers)
    stream = io.StringIO()
    callback = JsonLog("warning", stream)

    callback.on_start(Statistics())
    logging.getLogger("flwr.fedagent").error("node %d\nis odd", 3)
    callback.on_end(Statistics(), RunEnd("completed", "end"), ArrayRecord)
    logging.getLogger("flwr.fedagent").error("plain again")

    (line,) = stream.getvalue().splitlines()
    logged = json.loads(line)
    assert logged.pop("time")
    assert logged == {
        "level": "error",
        "event": "log",
        "logger": "flwr.fedagent",
        "message": "node 3\nis odd",
    }
    assert flower.handlers == before


def test_two_runs_at_the_same_time_leave_flowers_log_as_it_was():
    flower = logging.getLogger("flwr")
    before = list(flower.handlers)
    first, second = JsonLog("info", io.StringIO()), JsonLog("info", io.StringIO())

    first.on_start(Statistics())
    second.on_start(Statistics())
    first.on_end(Statistics(), RunEnd("completed", "end"), ArrayRecord)
    second.on_end(Statistics(), RunEnd("completed", "end"), ArrayRecord)

    assert flower.handlers == before


def test_lines_go_to_what_standard_error_is_now(monkeypatch):
    before, now = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", before)
    callback = JsonLog()
    monkeypatch.setattr(sys, "stderr", now)  # as a live display does

    callback.on_start(Statistics())
    callback.on_end(Statistics(), RunEnd("completed", "end"), ArrayRecord)

    assert [json.loads(line)["event"] for line in now.getvalue().splitlines()] == ["start", "end"]
    assert before.getvalue() == ""


def test_not_a_number_is_null():
    stream = io.StringIO()
    evaluation = Evaluation(1, 0.0, 1, "server", {"loss": float("nan")})

    JsonLog("info", stream).on_evaluation(Statistics(), evaluation)

    assert json.loads(stream.getvalue())["metrics"] == {"loss": None}


def test_stream_that_is_closed_does_not_end_the_run(monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    stream = io.StringIO()
    stream.close()
    log = Log()

    strategy = FedBuff(
        concurrency=2,
        fraction_evaluate=0.0,
        callbacks=[JsonLog("info", stream), log],
    )
    run(strategy, Lognormal(num_nodes=4), rounds=2)

    assert log.statistics.version == 2


def test_unknown_level_is_refused():
    with pytest.raises(ConfigurationError, match="debug, info, warning, error"):
        JsonLog("loud")
