import math
from pathlib import Path

import numpy as np
import pytest

from fedagent.errors import ConfigurationError
from fedagent.report import find_runs, plot_runs
from fedagent.report.figure import mean_and_band
from fedagent.stopping import Metric, RunEnd

from .conftest import Record, model


def test_seeds_are_averaged_as_steps_on_the_union_of_their_times() -> None:
    times, mean, least, greatest = mean_and_band(
        [[(0.0, 0.0), (10.0, 1.0)], [(0.0, 0.2), (4.0, 0.4), (20.0, 0.8)]]
    )

    assert times.tolist() == [0.0, 4.0, 10.0, 20.0]
    assert mean.tolist() == pytest.approx([0.1, 0.2, 0.7, 0.9])
    assert least.tolist() == [0.0, 0.0, 0.4, 0.8]
    assert greatest.tolist() == [0.2, 0.4, 1.0, 1.0]


def test_mean_begins_where_every_seed_has_a_value() -> None:
    times, *_ = mean_and_band([[(0.0, 0.0), (9.0, 1.0)], [(5.0, 0.2)]])

    assert times.tolist() == [5.0, 9.0]


def test_last_of_several_versions_at_one_moment_counts() -> None:
    times, mean, *_ = mean_and_band([[(0.0, 0.1), (1.0, 0.2), (1.0, 0.3)]])

    assert (times.tolist(), mean.tolist()) == ([0.0, 1.0], [0.1, 0.3])


def test_diverged_seed_is_no_part_of_a_mean() -> None:
    _, mean, _, greatest = mean_and_band([[(0.0, 0.1), (1.0, 0.2)], [(0.0, 0.3), (1.0, math.nan)]])

    assert mean[0] == pytest.approx(0.2)
    assert np.isnan([mean[1], greatest[1]]).all()


class Drawn:
    """What `plot_runs` put on its axes, taken when the figure is saved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from matplotlib.figure import Figure

        self.figures: list[Figure] = []

        def savefig(figure: Figure, path: Path, **_: object) -> None:
            self.figures.append(figure)
            path.touch()

        monkeypatch.setattr(Figure, "savefig", savefig)

    def labels(self) -> list[str]:
        return [text.get_text() for text in self.figures[0].legends[0].get_texts()]


def test_legend_names_rows_and_axes_have_units(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("1", [0.1, 0.95], step_s=600.0, strategy="fedavg")
    record("2", [0.1, 0.95], step_s=300.0, strategy="fedbuff", seed=0)
    record("3", [0.1, 0.95], step_s=200.0, strategy="fedbuff", seed=1)
    drawn = Drawn(monkeypatch)

    plot_runs(find_runs([tmp_path]), tmp_path / "figure.png")

    (axes,) = drawn.figures[0].axes
    assert drawn.labels() == ["strategy=fedavg", "strategy=fedbuff (2 seeds)"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("virtual time (min)", "accuracy")
    assert axes.get_xscale() == "linear"


def test_very_different_times_are_drawn_on_a_log_axis(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("1", [0.1, 0.5, 0.95], step_s=21.0, strategy="fedavg")
    record("2", [0.1, 0.5, 0.95], step_s=1.0, strategy="fedbuff")
    drawn = Drawn(monkeypatch)

    plot_runs(find_runs([tmp_path]), tmp_path / "figure.png")

    assert drawn.figures[0].axes[0].get_xscale() == "log"


def test_metrics_with_different_names_get_their_own_panels(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("1", [0.1, 0.5])
    run = record("2", [], metric=Metric("loss", "min"), end=None)
    run.evaluate("server", {"loss": 2.0})
    run.recorder.on_end(run.statistics, RunEnd("completed", "end"), model)
    drawn = Drawn(monkeypatch)

    plot_runs(find_runs([tmp_path]), tmp_path / "figure.png")

    assert [axes.get_ylabel() for axes in drawn.figures[0].axes] == ["accuracy", "loss"]


def test_dot_is_hollow_when_a_seed_missed_the_target(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("1", [0.1, 0.95], step_s=8.0, strategy="fedavg")
    record("2", [0.1, 0.95], step_s=6.0, seed=0)
    record("3", [0.1, 0.2], step_s=6.0, seed=1)
    drawn = Drawn(monkeypatch)

    plot_runs(find_runs([tmp_path]), tmp_path / "figure.png")

    (axes,) = drawn.figures[0].axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [dot.get_xydata().tolist() for dot in dots] == [[[8.0, 0.9]], [[6.0, 0.9]]]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True]


def test_run_that_diverged_ends_in_a_cross(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("1", [0.1, 0.5, math.nan])
    drawn = Drawn(monkeypatch)

    plot_runs(find_runs([tmp_path]), tmp_path / "figure.png")

    (cross,) = [line for line in drawn.figures[0].axes[0].lines if line.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[10.0, 0.5]]


def test_nothing_to_draw_is_said(record: Record, tmp_path: Path) -> None:
    record("1", [])

    with pytest.raises(ConfigurationError, match="nothing to draw"):
        plot_runs(find_runs([tmp_path]), tmp_path / "figure.png")
