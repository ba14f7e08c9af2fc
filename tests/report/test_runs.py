import json
import logging
import math
from pathlib import Path

import pytest

from fedagent.errors import ConfigurationError
from fedagent.report import find_runs
from fedagent.stopping import RunEnd

from .conftest import Record, model


def test_runs_are_found_in_the_order_given_then_by_number(record: Record, tmp_path: Path) -> None:
    for folder in ("a/10", "a/2", "z/1"):
        record(folder, [0.1])

    found = find_runs([tmp_path / "z", tmp_path / "a"])

    assert [str(run.directory.relative_to(tmp_path)) for run in found] == ["z/1", "a/2", "a/10"]


def test_folder_given_twice_counts_once(record: Record, tmp_path: Path) -> None:
    record("a", [0.1])

    assert len(find_runs([tmp_path, tmp_path / "a", tmp_path])) == 1


def test_what_was_recorded_is_read_back(record: Record, tmp_path: Path) -> None:
    run = record("a", [0.1, 0.5], end=None)
    run.evaluate("clients", {"accuracy": 0.7})
    run.publish()
    run.evaluate("server", {"accuracy": math.nan})
    run.recorder.on_end(run.statistics, RunEnd("completed", "end"), model)

    (read,) = find_runs([tmp_path])

    assert read.about["strategy"] == "fedbuff"
    assert (read.num_updates, read.num_bytes, read.is_virtual) == (4, 5600, True)
    assert read.curve[:2] == ((0.0, 0.1), (10.0, 0.5))
    assert read.curve[2][0] == 20.0
    assert math.isnan(read.curve[2][1])


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("summary.json", "{", "Expecting"),
        ("summary.json", "[]", "TypeError"),
        ("summary.json", "{}", "metric"),
        ("metrics.jsonl", '{"event": "evalu', "Unterminated"),
        ("metrics.jsonl", '{"event": "evaluation"}', "source"),
    ],
)
def test_broken_file_is_named_and_its_run_skipped(
    record: Record,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    text: str,
    told: str,
) -> None:
    record("good", [0.1])
    record("bad", [0.1])
    (tmp_path / "bad" / file).write_text(text)

    with caplog.at_level(logging.WARNING):
        found = find_runs([tmp_path])

    assert [run.directory.name for run in found] == ["good"]
    assert str(tmp_path / "bad" / file) in caplog.text
    assert told in caplog.text


def test_number_that_is_text_is_named(
    record: Record, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record("good", [0.1])
    record("bad", [0.1])
    path = tmp_path / "bad/summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bytes_up": "many"}))

    assert len(find_runs([tmp_path])) == 1
    assert "bytes_up is 'many', not a number" in caplog.text


def test_unfinished_run_is_named_and_skipped(
    record: Record, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record("done", [0.1])
    record("killed", [0.1], end=None)

    assert [run.directory.name for run in find_runs([tmp_path])] == ["done"]
    assert str(tmp_path / "killed") in caplog.text


@pytest.mark.parametrize(
    ("name", "told"), [("empty", "no finished run"), ("absent", "not a folder")]
)
def test_path_without_a_run_is_an_error_that_names_it(
    record: Record, tmp_path: Path, name: str, told: str
) -> None:
    record("good", [0.1])
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigurationError, match=rf"{name} .*{told}"):
        find_runs([tmp_path / "good", tmp_path / name])
