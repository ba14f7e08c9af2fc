import json
import logging
import math
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from safetensors import safe_open
from safetensors.torch import load_file

from fedagent.errors import ConfigurationError, OutputError
from fedagent.report import Recorder
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import Metric, RunEnd
from fedagent.wire.records import digest

from .conftest import Record, model


def lines(folder: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return loaded


def test_every_version_and_evaluation_is_one_line(record: Record, tmp_path: Path) -> None:
    record("run", [0.1, 0.5])

    initial, version, evaluation = lines(tmp_path / "run")
    assert initial["version"] == 0
    assert version == {
        "event": "version",
        "version": 1,
        "virtual_time_s": 10.0,
        "time_s": 10.0,
        "wall_time_s": 0.5,
        "num_updates": 2,
        "bytes_down": 2000,
        "bytes_up": 800,
        "bytes_between_regions": 0,
        "staleness_mean": 1.5,
        "staleness_max": 3,
    }
    assert evaluation == {
        "event": "evaluation",
        "source": "server",
        "version": 1,
        "virtual_time_s": 10.0,
        "time_s": 10.0,
        "wall_time_s": 0.5,
        "num_updates": 2,
        "bytes_down": 2000,
        "bytes_up": 800,
        "bytes_between_regions": 0,
        "metrics": {"accuracy": 0.5},
    }


def test_real_time_is_not_called_virtual(record: Record, tmp_path: Path) -> None:
    record("run", [0.1, 0.5], is_virtual=False)

    assert {line["virtual_time_s"] for line in lines(tmp_path / "run")} == {None}
    assert summary(tmp_path / "run")["virtual_time_s"] is None
    assert summary(tmp_path / "run")["time_s"] == 10.0


def test_killed_run_leaves_every_line_it_wrote(record: Record, tmp_path: Path) -> None:
    record("run", [0.1, 0.5, 0.6], end=None)

    assert [line["version"] for line in lines(tmp_path / "run")] == [0, 1, 1, 2, 2]
    assert not (tmp_path / "run" / "summary.json").exists()


def test_resumed_run_writes_no_version_twice(record: Record, tmp_path: Path) -> None:
    record("run", [0.1, 0.5, 0.6], end=None)
    saved = Recorder(tmp_path / "run", Metric(), None, {}).state_dict()
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(
        path.read_text() + '{"event": "version", "version": 3}\n{"event": "version", "ver'
    )
    recorder = Recorder(tmp_path / "run", Metric(), None, {})
    recorder.load_state_dict(json.loads(json.dumps(saved)))
    recorder.on_start(Statistics(version=2))
    recorder.on_version(Statistics(version=3))

    assert [line["version"] for line in lines(tmp_path / "run")] == [0, 1, 1, 2, 2, 3]


def test_resumed_run_remembers_the_best_value_and_when_the_target_was_reached(
    record: Record, tmp_path: Path
) -> None:
    whole, half = (Recorder(tmp_path / name, Metric(), 0.4, {}) for name in ("whole", "half"))
    whole.on_start(Statistics())
    whole.on_evaluation(Statistics(), Evaluation(1, 5.0, 3, "server", {"accuracy": 0.5}))
    half.load_state_dict(json.loads(json.dumps(whole.state_dict() | {"num_bytes": 0})))
    half.on_start(Statistics(version=1))
    half.on_evaluation(Statistics(), Evaluation(2, 9.0, 6, "server", {"accuracy": 0.3}))
    half.on_end(Statistics(version=2), RunEnd("completed", "2 versions"), model)

    assert summary(tmp_path / "half")["best_value"] == 0.5
    assert summary(tmp_path / "half")["time_to_target_s"] == 5.0


def test_a_resumed_run_whose_files_have_become_shorter_is_refused(
    record: Record, tmp_path: Path
) -> None:
    record("run", [0.1, 0.5, 0.6], end=None)
    saved = Recorder(tmp_path / "run", Metric(), None, {}).state_dict()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    recorder = Recorder(tmp_path / "run", Metric(), None, {})
    recorder.load_state_dict(saved)

    with pytest.raises(OutputError, match="it was changed since"):
        recorder.on_start(Statistics(version=2))


def test_a_second_run_in_the_folder_is_refused_and_the_first_one_stays(
    record: Record, tmp_path: Path
) -> None:
    record("run", [0.1, 0.5, 0.6])
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    second = Recorder(tmp_path / "run", Metric(), None, {})

    with pytest.raises(ConfigurationError, match="holds a run already"):
        second.on_start(Statistics())
    second.on_end(Statistics(), RunEnd("failed", "it could not begin"), model)

    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_may_overwrite_leaves_nothing_of_the_one_before(
    record: Record, tmp_path: Path
) -> None:
    record("run", [0.1, 0.5, 0.6])
    Recorder(tmp_path / "run", Metric(), None, {}, overwrite=True).on_start(Statistics())

    assert lines(tmp_path / "run") == []
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"metrics.jsonl", "run.json"}


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk that is full; not even pytest's own output."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_named_and_leaves_whole_lines_and_the_model(
    record: Record, tmp_path: Path
) -> None:
    run = record("run", [0.1, 0.5], end=None)
    with small_disk((tmp_path / "run" / "metrics.jsonl").stat().st_size + 100):
        with pytest.raises(OutputError, match=r"metrics.jsonl cannot be written: File too large"):
            run.publish()
        with pytest.raises(OutputError, match=r"summary.json cannot be written: File too large"):
            run.recorder.on_end(run.statistics, RunEnd("failed", "the disk is full"), model)

    assert [line["version"] for line in lines(tmp_path / "run")] == [0, 1, 1]
    assert load_file(tmp_path / "run" / "model.safetensors")["steps"] == 7
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "metrics.jsonl",
        "model.safetensors",
        "run.json",
    }


def test_a_model_that_its_folder_does_not_take_is_rescued_to_another_one(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record("run", [0.1, 0.5], end=None)
    (tmp_path / "run" / "model.safetensors" / "in the way").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    with pytest.raises(OutputError, match="cannot be written: Is a directory") as raised:
        run.recorder.on_end(run.statistics, RunEnd("completed", "end"), model)

    (rescued,) = (tmp_path / "elsewhere").rglob("*.safetensors")
    assert str(raised.value).endswith(f"The model is in {rescued}.")
    assert load_file(rescued)["steps"] == 7
    assert summary(tmp_path / "run")["num_versions"] == 1


def test_a_model_that_the_disk_does_not_take_costs_the_model_only(
    record: Record, tmp_path: Path
) -> None:
    run = record("run", [0.1, 0.5], end=None)
    large = ArrayRecord({"weight": Array(np.zeros(5000, np.float32))})
    message = r"run/model.safetensors cannot be written: .*too large"
    with small_disk(10_000), pytest.raises(OutputError, match=message):
        run.recorder.on_end(run.statistics, RunEnd("completed", "end"), lambda: large)

    assert summary(tmp_path / "run")["num_versions"] == 1
    assert not list((tmp_path / "run").glob("*model*"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_no_number_is_null(record: Record, tmp_path: Path, value: float) -> None:
    record("run", [0.5, value], target=None)

    assert lines(tmp_path / "run")[-1]["metrics"] == {"accuracy": None}
    assert summary(tmp_path / "run")["final_value"] is None
    assert summary(tmp_path / "run")["best_value"] == 0.5


def test_numpy_metrics_are_numbers(record: Record, tmp_path: Path) -> None:
    record("run", [np.float32(0.5)])  # type: ignore[list-item]

    assert lines(tmp_path / "run")[0]["metrics"] == {"accuracy": 0.5}


def test_summary_adds_up(record: Record, tmp_path: Path) -> None:
    run = record("run", [0.1, 0.95, 0.93], end=None)
    run.statistics.outcomes["failed", "error"] = 2
    run.statistics.evaluation_outcomes["applied", ""] = 5
    run.statistics.unsolicited["late"] = 1
    run.statistics.at_work_max = 7
    run.statistics.lost = {"strategy-raised": 3}
    run.recorder.on_end(run.statistics, RunEnd("completed", "2 versions"), model)

    written = summary(tmp_path / "run")
    expected = {
        "end": {"kind": "completed", "detail": "2 versions"},
        "metric": {"name": "accuracy", "mode": "max", "source": "server"},
        "final_value": 0.93,
        "best_value": 0.95,
        "target": 0.9,
        "num_versions": 2,
        "num_updates": 4,
        "time_s": 20.0,
        "virtual_time_s": 20.0,
        "wall_time_s": 1.0,
        "num_dispatches": 6,
        "dispatches": {"applied": 4, "failed(error)": 2},
        "evaluations": {"applied": 5},
        "lost": {"strategy-raised": 3},
        "unsolicited": {"late": 1},
        "bytes_down": 4000,
        "bytes_up": 1600,
        "bytes_between_regions": 0,
        "staleness_mean": 1.5,
        "staleness_max": 3,
        "utilisation": 0.5,
        "at_work_max": 7,
        "params_sha256": digest(model()),
    }
    assert {key: written[key] for key in expected} == expected
    assert sum(written["dispatches"].values()) + written["in_flight"] == written["num_dispatches"]
    assert written["software"]["flwr"].startswith("1.")
    assert written["machine"]["cpu_count"] >= 1


@pytest.mark.parametrize(
    ("mode", "values", "time_s", "updates"),
    [
        ("max", [0.1, 0.4, 0.5, 0.3], 20.0, 4),
        ("min", [0.9, 0.5, 0.7, 0.1], 10.0, 2),
        ("max", [math.nan, 0.1, 0.2], None, None),
        ("min", [math.nan, 0.9, math.nan], None, None),
        ("max", [0.6], 0.0, 0),
    ],
)
def test_time_to_target_is_that_of_the_first_evaluation_at_it(
    record: Record,
    tmp_path: Path,
    mode: str,
    values: list[float],
    time_s: float | None,
    updates: int | None,
) -> None:
    record("run", values, target=0.5, metric=Metric(mode=mode))

    assert summary(tmp_path / "run")["time_to_target_s"] == time_s
    assert summary(tmp_path / "run")["updates_to_target"] == updates


def test_best_value_follows_the_mode(record: Record, tmp_path: Path) -> None:
    record("run", [0.9, 0.2, 0.4], metric=Metric(mode="min"))

    assert summary(tmp_path / "run")["best_value"] == 0.2


def test_another_source_does_not_reach_the_target(record: Record, tmp_path: Path) -> None:
    run = record("run", [0.1], end=None)
    run.evaluate("clients", {"accuracy": 0.99, "per_class": [1.0, 0.98]})
    run.recorder.on_end(run.statistics, RunEnd("completed", "end"), model)

    assert summary(tmp_path / "run")["time_to_target_s"] is None
    assert summary(tmp_path / "run")["final_value"] == 0.1
    assert lines(tmp_path / "run")[-1]["source"] == "clients"


def test_model_is_read_back_by_torch(record: Record, tmp_path: Path) -> None:
    record("run", [0.1])
    path = tmp_path / "run" / "model.safetensors"

    tensors = load_file(path)
    assert tensors["weight"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert tensors["steps"].shape == ()
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_plot_is_drawn_and_nothing_temporary_stays(record: Record, tmp_path: Path) -> None:
    record("run", [0.1, math.nan, 0.95], plot=True)

    left = {
        str(f.relative_to(tmp_path / "run")) for f in (tmp_path / "run").rglob("*") if f.is_file()
    }
    files = {"run.json", "metrics.jsonl", "summary.json", "model.safetensors", "plots/metric.png"}
    assert left == files
    assert (tmp_path / "run/plots/metric.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_of_a_run_that_may_be_lost_are_gone_before_the_next_begins(
    record: Record, tmp_path: Path
) -> None:
    plots = tmp_path / "run" / "plots"
    plots.mkdir(parents=True)
    for name in ("week.png", "sample.txt", "of-mine.csv"):
        (plots / name).touch()
    record("run", [0.1])

    assert [file.name for file in plots.iterdir()] == ["of-mine.csv"]


def test_run_without_the_metric_ends_without_a_plot(record: Record, tmp_path: Path) -> None:
    record("run", [0.1], metric=Metric("f1"), plot=True)

    assert summary(tmp_path / "run")["final_value"] is None
    assert not (tmp_path / "run/plots").exists()


def test_without_matplotlib_a_run_is_complete_but_for_its_plot(
    record: Record,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    record("run", [0.1, 0.95], plot=True)

    left = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*.*")}
    assert left == {"run.json", "metrics.jsonl", "summary.json", "model.safetensors"}
    assert 'pip install "fedagent[plots]"' in caplog.text
