import json
import sys
from pathlib import Path

import pytest

from fedagent.report import report
from fedagent.report.command import show

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
