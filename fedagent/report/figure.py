"""The metric against time, for one run or many."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedagent import formatting
from fedagent.errors import require
from fedagent.report.compare import Row, compare, shared
from fedagent.report.files import replacing
from fedagent.report.runs import RunRecord
from fedagent.tasks.figures import empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
"""Okabe and Ito's colours, which colour-blind readers tell apart too, without the pale yellow."""
DASHES = ("-", "--", ":", "-.")
"""Once the colours are used up, the dashes tell rows apart."""
LOG_FROM = 8.0
"""Time is drawn on a log axis once the longest row takes more than this many times the shortest."""
INK, FAINT, GRID = "#333333", "#707070", "#E6E6E6"

Floats = npt.NDArray[np.float64]


def plot_runs(runs: Iterable[RunRecord], path: Path) -> None:
    """Draw the metric of `runs` against time into the PNG file `path`.

    Runs that differ in the seed only are one line: their mean, in a band from the least to the
    greatest. Between two evaluations, and after the end of a run, the last value holds. Metrics
    with different names get a panel each. A dot marks the mean time at which a row reached its
    target, hollow when some seeds did not; a cross, where its metric stopped being finite. Runs
    that did not complete are drawn only where a row has no others; its label says so.

    Raises
    ------
    ConfigurationError
        If no run has a value of its metric.
    DataUnavailableError
        If matplotlib is not installed.
    """
    rows = compare(run for run in runs if run.curve)
    require(bool(rows), "No run has a value of its metric, so there is nothing to draw.")
    panels: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        panels.setdefault(row.experiment["metric"], []).append(index)
    columns = 2 if len(rows) > 3 and max(len(_label(row)) for row in rows) < 45 else 1
    legend_height = 0.2 * -(-len(rows) // columns)
    figure = empty_figure(height=0.8 + 3.4 * len(panels) + legend_height)
    for axes, (metric, indices) in zip(
        figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True
    ):
        _draw({index: rows[index] for index in indices}, axes)
        axes.set_ylabel(metric, color=INK)
    figure.suptitle(_title(rows), x=0.01, ha="left", fontsize=9, color=FAINT)
    figure.legend(
        loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=INK
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def mean_and_band(curves: Sequence[Sequence[tuple[float, float]]]) -> tuple[Floats, ...]:
    """Return (times, mean, least, greatest) of step curves, on the union of their times.

    The grid begins where every curve has a value. A NaN in one curve is a NaN in the mean and
    the band: the mean of the seeds that did not diverge is not the mean of the seeds.
    """
    begin_s = max(curve[0][0] for curve in curves)
    grid = np.unique([time_s for curve in curves for time_s, _ in curve if time_s >= begin_s])
    values = np.array([_held(curve, grid) for curve in curves])
    return grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def _held(curve: Sequence[tuple[float, float]], grid: Floats) -> Floats:
    times, values = np.array(curve, dtype=np.float64).T
    held: Floats = values[np.searchsorted(times, grid, side="right") - 1]
    return held


def _draw(rows: dict[int, Row], axes: "Axes") -> None:
    bands = {i: mean_and_band([run.curve for run in row.drawn]) for i, row in rows.items()}
    scale = _TimeScale([times for times, *_ in bands.values()])
    for index, row in rows.items():
        color, (times, mean, least, greatest) = PALETTE[index % len(PALETTE)], bands[index]
        x = scale.place(times)
        if len(row.drawn) > 1:
            axes.fill_between(x, least, greatest, step="post", color=color, alpha=0.18, lw=0)
        dashes = DASHES[index // len(PALETTE) % len(DASHES)]
        axes.step(x, mean, dashes, where="post", color=color, lw=1.8, label=_label(row))
        if (finite := np.flatnonzero(np.isfinite(mean))).size:
            last = finite[-1]  # a cross where the metric stopped being a number
            axes.plot(x[last], mean[last], "." if last == len(mean) - 1 else "x", color=color, ms=7)
        if row.time_to_target_s:
            face = color if row.num_reached == len(row.runs) else "white"
            at_s = np.array([row.time_to_target_s.mean])
            axes.plot(
                scale.place(at_s),
                row.experiment["target"],
                "o",
                ms=6.5,
                mec=color,
                mfc=face,
                mew=1.5,
                zorder=5,
            )
    for target in {row.experiment["target"] for row in rows.values()} - {None}:
        axes.axhline(target, color=FAINT, lw=1.0, ls=(0, (6, 4)), zorder=1)
        axes.annotate(
            f"target\n{target:g}",
            (1.01, target),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color=FAINT,
        )
    clock = (
        "virtual time" if all(r.experiment["clock"] == "virtual" for r in rows.values()) else "time"
    )
    scale.apply(axes, clock)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=9)


class _TimeScale:
    """The unit of the time axis, and whether it is logarithmic."""

    def __init__(self, grids: Sequence[Floats]) -> None:
        ends_s = [float(times[-1]) for times in grids if times[-1] > 0]
        self._is_log = bool(ends_s) and max(ends_s) > LOG_FROM * min(ends_s)
        # A log axis has no place for the time zero, so it begins with the first step after it.
        self._begin_s = min(t for times in grids for t in times if t > 0) if self._is_log else 0.0
        longest = max(ends_s, default=0.0)
        middle = float(np.sqrt(longest * min(ends_s))) if self._is_log else longest
        self._unit_s, self._unit = formatting.time_unit(middle)

    def place(self, times: Floats) -> Floats:
        placed: Floats = np.maximum(times, self._begin_s) / self._unit_s
        return placed

    def apply(self, axes: "Axes", clock: str) -> None:
        axes.set_xlabel(f"{clock} ({self._unit})", color=INK)
        axes.margins(x=0.02)
        if self._is_log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: formatting.number(value))
        else:
            axes.set_xlim(left=0.0)


def _label(row: Row) -> str:
    seeds = [f"{len(row.runs)} seeds"] if len(row.runs) > 1 else []
    said = ", ".join([*seeds, *filter(None, [row.remark])])
    return f"{row.name} ({said})" if said else row.name


def _title(rows: Sequence[Row]) -> str:
    """Return what all rows share and no axis says, on two lines at most."""
    said = {"metric", "target", "clock"}
    text = ", ".join(f"{k}={v}" for k, v in shared(rows).items() if k not in said)
    return "\n".join(textwrap.wrap(text, width=95, max_lines=2, placeholder=" …"))
