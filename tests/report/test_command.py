import json
import sys
from pathlib import Path

import pytest

from fedagent.report import report
from fedagent.report.command import show
from fedagent.stopping import Baseline, Metric

from .conftest import Record


def test_report_prints_the_table_and_the_path_of_its_figure(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("a/1", [0.1, 0.95], strategy="fedavg")
    record("b/2", [0.1, 0.95], strategy="fedbuff")

    code = report([tmp_path / "a", tmp_path / "b"], None, as_json=False)

    printed = capsys.readouterr()
    assert code == 0
    assert "strategy=fedbuff" in printed.out
    assert str(tmp_path / "comparison.png") in printed.err
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_all_there_is_on_standard_output(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("a", [0.1, 0.95])

    code = report([tmp_path], tmp_path / "elsewhere" / "f.png", as_json=True)

    assert code == 0
    assert json.loads(capsys.readouterr().out)[0]["num_seeds"] == 1
    assert (tmp_path / "elsewhere" / "f.png").exists()


def test_table_in_a_pipe_is_not_cut_at_eighty_columns(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a-strategy-with-a-name-that-alone-would-fill-more-than-half-of-eighty-columns"
    record("a", [0.1], strategy=name)
    record("b", [0.1])

    report([tmp_path], None, as_json=False)

    assert f"strategy={name}" in capsys.readouterr().out


def test_folder_without_runs_is_an_exit_code_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = report([tmp_path], None, as_json=False)

    assert code == 2
    assert f"{tmp_path} holds no finished run" in capsys.readouterr().err


def test_runs_without_a_metric_are_reported_without_a_figure(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("a", [])

    code = report([tmp_path], None, as_json=False)

    assert code == 0
    assert "No figure" in capsys.readouterr().err
    assert not (tmp_path / "comparison.png").exists()


def test_without_matplotlib_the_table_comes_and_the_pip_line(
    record: Record,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record("a", [0.1])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    pip_line = 'pip install "fedagent[plots]"'

    assert report([tmp_path], None, as_json=False) == 0, "a figure was only offered"
    offered = capsys.readouterr()
    assert report([tmp_path], tmp_path / "f.png", as_json=False) == 2, "a figure was asked for"
    asked = capsys.readouterr()

    assert "No figure: " in offered.err
    assert pip_line in offered.err
    assert pip_line in asked.err
    assert "final" in offered.out
    assert "final" in asked.out


@pytest.mark.parametrize("is_drawn", [True, False])
def test_only_files_that_were_written_are_named(
    is_drawn: bool, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("a", [0.1], plot=is_drawn)

    show(tmp_path / "a")

    named = capsys.readouterr().out.splitlines()[-1]
    assert "summary.json, metrics.jsonl, model.safetensors" in named
    assert ("plots/metric.png" in named) == is_drawn


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [(Metric("accuracy"), "better"), (Metric("accuracy", "min"), "NOT better")],
)
def test_the_end_of_a_run_shows_what_there_was_to_beat(
    metric: Metric, verdict: str, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("a", [0.1, 0.7], metric=metric, baseline=Baseline("week before", 0.6123))
    run = show(tmp_path / "a")

    out = capsys.readouterr().out
    assert run.baseline == Baseline("week before", 0.6123)
    assert f"accuracy: week before 0.6123, this run 0.7: {verdict}\n" in out
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["baseline"] == {
        "name": "week before",
        "value": 0.6123,
    }


def test_a_run_of_before_baselines_were_written_is_read(record: Record, tmp_path: Path) -> None:
    record("a", [0.1])
    path = tmp_path / "a" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["baseline"]
    path.write_text(json.dumps(summary))

    assert show(tmp_path / "a").baseline is None


def test_rows_show_the_baseline_of_their_own_data(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("a", [0.1], app="x", baseline=Baseline("forest", 0.4))
    record("b", [0.2], app="y", baseline=Baseline("last value", 0.5))
    record("c", [0.3], app="z")

    assert report([tmp_path], None, as_json=True) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["baseline_name"] for row in rows] == ["forest", "last value", None]
    assert [row["baseline"] and row["baseline"]["mean"] for row in rows] == [0.4, 0.5, None]
    assert report([tmp_path], None, as_json=False) == 0
    assert "baseline" in capsys.readouterr().out
