"""What an application shows of its model lies beside the plot, and never costs a run."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import ArrayRecord

from fedagent.errors import ConfigurationError
from fedagent.report import Exhibits
from fedagent.report.exhibits import save
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd
from fedagent.tasks import Showcase
from fedagent.tasks.figures import empty_figure

from .conftest import COMPLETED, model


def end(
    folder: Path, show: Callable[[ArrayRecord], Showcase], how: RunEnd = COMPLETED
) -> list[str]:
    Exhibits(folder, show).on_end(Statistics(), how, model)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    return caplog


def test_figures_and_texts_of_the_final_model_are_saved(tmp_path: Path) -> None:
    seen = []

    def show(arrays: ArrayRecord) -> Showcase:
        seen.append(sorted(arrays))
        return Showcase({"a week": empty_figure(1.0, 1.0)}, {"sample": "to be"})

    assert end(tmp_path, show) == ["plots/a week.png", "plots/sample.txt"]
    assert seen == [["steps", "weight"]]
    assert (tmp_path / "plots/a week.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plots/sample.txt").read_text() == "to be\n"


def test_a_run_that_was_stopped_or_failed_shows_nothing(tmp_path: Path) -> None:
    def show(arrays: ArrayRecord) -> Showcase:
        raise AssertionError("nobody asked")

    for kind in ("stopped", "stalled", "failed"):
        assert end(tmp_path, show, RunEnd(kind, "scripted")) == []  # type: ignore[arg-type]


def test_a_showcase_that_fails_is_one_warning_with_its_reason(
    tmp_path: Path, heard: pytest.LogCaptureFixture
) -> None:
    def show(arrays: ArrayRecord) -> Showcase:
        raise ZeroDivisionError("no test data")

    assert end(tmp_path, show) == []
    (warning,) = heard.records
    assert "ZeroDivisionError('no test data')" in warning.getMessage()
    assert "the run itself is complete" in warning.getMessage()


def test_without_matplotlib_the_warning_says_how_to_get_it(
    tmp_path: Path, heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    assert end(tmp_path, lambda _: Showcase({"week": empty_figure()})) == []
    assert 'pip install "fedagent[plots]"' in heard.text


@pytest.mark.parametrize("name", ["../model", "metric", "", "a/b", ".hidden"])
def test_a_name_that_is_no_files_or_the_plots_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="showcase cannot be named"):
        save(Showcase(texts={name: "text"}), tmp_path)
    assert not list(tmp_path.iterdir())
