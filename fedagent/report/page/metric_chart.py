"""The metric of runs: a figure for every metric's name, and a switch for its horizontal axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedagent import formatting
from fedagent.report.compare import Row
from fedagent.report.page import look
from fedagent.report.page.curves import Curve, curves_of
from fedagent.report.page.data import AXES, PageRun

MOST_METRICS = 4
MOST_NAMED = 12
"""With more rows than that, names are in the tooltip and in the table alone."""
MOST_DETAILED = 24
"""With more rows than that, raw values and bands would hide everything, and are left out."""
_DRAWN_FIRST = "clock"

SWITCH = """
const axis = axes[this.active];
for (const panel of panels) {
  panel.shown.data = panel.hidden[axis].data;
  const reached = {...panel.reached.data, x: panel.reached.data["x_" + axis]};
  panel.reached.data = reached;
  panel.axis.axis_label = labels[axis];
  panel.figure.reset.emit();
}
"""


def metric_charts(rows: Mapping[int, Row], runs: Mapping[object, PageRun]) -> list[Any]:
    """Return the switch and the figures; nothing without a value of any metric.

    Parameters
    ----------
    rows : those that `compare` returns, by their place, whose metric has a value.
    runs : folder -> what is known of it.
    """
    if not rows:
        return []
    told = list(rows.values())
    units = _units(told, runs)
    curves = dict(zip(rows, curves_of(told, runs), strict=True))
    labels = {axis: label for axis, (_, label) in units.items()}
    by_metric: dict[str, list[int]] = {}
    for place, row in rows.items():
        by_metric.setdefault(row.experiment["metric"], []).append(place)
    panels = [
        _panel(number, name, {i: rows[i] for i in places}, curves, units)
        for number, (name, places) in enumerate(list(by_metric.items())[:MOST_METRICS])
    ]
    models = look.bokeh("models")
    switch = look.styled(
        models.RadioButtonGroup(
            labels=[labels[axis] for axis in AXES], active=AXES.index(_DRAWN_FIRST), name="axis"
        )
    )
    args = {"axes": list(AXES), "labels": labels, "panels": panels}
    switch.js_on_change("active", models.CustomJS(args=args, code=SWITCH))
    return [switch, *(panel["figure"] for panel in panels)]


def _panel(
    number: int,
    name: str,
    rows: Mapping[int, Row],
    curves: Mapping[int, Mapping[str, Curve]],
    units: Mapping[str, tuple[float, str]],
) -> dict[str, Any]:
    is_few = len(rows) <= MOST_DETAILED
    title = name if is_few else f"{name}: means, without bands, of {len(rows):,} settings"
    figure = look.figure(title, 380, name=f"metric-{number}")
    figure.xaxis.axis_label = units[_DRAWN_FIRST][1]
    figure.yaxis.axis_label = name
    hidden = {
        axis: look.source(
            f"curve-{number}-{axis}",
            **_columns(rows, {i: curves[i][axis] for i in rows}, units[axis][0]),
        )
        for axis in AXES
    }
    shown = look.source(f"curve-{number}", **hidden[_DRAWN_FIRST].data)
    if is_few and any(len(row.drawn) > 1 for row in rows.values()):
        figure.patches("band_x", "band_y", source=shown, color="colour", alpha=0.2, line_width=0)
    faded = {"nonselection_alpha": 0.06}
    if is_few:
        figure.multi_line("x", "raw", source=shown, color="colour", alpha=0.35, **faded)
    smooth = figure.multi_line(
        "x", "smooth", source=shown, color="colour", line_width=2.4, nonselection_alpha=0.1
    )
    rows_told = [("run", "@name"), (name, "$y{0.0000}"), ("at", "$x{0,0.00}")]
    look.tooltip(figure, rows_told, [smooth], line_policy="interp", point_policy="follow_mouse")
    reached = _reached(number, rows, curves, units)
    if len(reached.data["x"]):
        dots = figure.scatter(
            "x", "y", source=reached, size=11, color="colour", line_color="#222222", name="reached"
        )
        look.tooltip(figure, [("target reached", "@name"), ("at", "@x{0,0.00}")], [dots])
    _levels(figure, rows)
    if len(rows) <= MOST_NAMED:
        models = look.bokeh("models")
        items = [
            models.LegendItem(label=_label(row), renderers=[smooth], index=place)
            for place, row in enumerate(rows.values())
        ]
        look.legend_below(figure, items)
        figure.legend.click_policy = "none"
    return {
        "figure": figure,
        "shown": shown,
        "hidden": hidden,
        "reached": reached,
        "axis": figure.xaxis[0],
    }


def _columns(rows: Mapping[int, Row], curves: Mapping[int, Curve], unit: float) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "x": [_small(c.x / unit) for c in curves.values()],
        "raw": [_small(c.raw) for c in curves.values()],
        "smooth": [_small(c.smooth) for c in curves.values()],
        "colour": [_colour(place) for place in curves],
        "name": [_label(row) for row in rows.values()],
        "row": list(rows),
    }
    if len(rows) > MOST_DETAILED:
        del columns["raw"]
    elif any(curve.low is not None for curve in curves.values()):
        bands = [_band(curve, unit) for curve in curves.values()]
        columns |= {"band_x": [x for x, _ in bands], "band_y": [y for _, y in bands]}
    return columns


def _band(curve: Curve, unit: float) -> tuple[Any, Any]:
    if curve.low is None or curve.high is None:
        return _small(np.zeros(0)), _small(np.zeros(0))
    finite = np.isfinite(curve.low) & np.isfinite(curve.high)
    x = curve.x[finite] / unit
    low, high = curve.low[finite], curve.high[finite]
    return _small(np.concatenate([x, x[::-1]])), _small(np.concatenate([low, high[::-1]]))


def _reached(
    number: int,
    rows: Mapping[int, Row],
    curves: Mapping[int, Mapping[str, Curve]],
    units: Mapping[str, tuple[float, str]],
) -> Any:
    there = [i for i in rows if all(curves[i][axis].reached is not None for axis in AXES)]
    columns: dict[str, Any] = {
        f"x_{axis}": [(curves[i][axis].reached or 0.0) / units[axis][0] for i in there]
        for axis in AXES
    }
    columns |= {
        "x": columns[f"x_{_DRAWN_FIRST}"],
        "y": [rows[i].experiment["target"] for i in there],
        "colour": [_colour(i) for i in there],
        "name": [_label(rows[i]) for i in there],
    }
    return look.source(f"reached-{number}", **columns)


def _levels(figure: Any, rows: Mapping[int, Row]) -> None:
    """Draw the targets and what there is to beat as lines that say what they are."""
    models = look.bokeh("models")
    targets = {row.experiment["target"] for row in rows.values()} - {None}
    levels = [(f"target {formatting.number(t, 4)}", t, "dashed") for t in sorted(targets)]
    beaten = {(r.baseline_name or "baseline", r.baseline.mean) for r in rows.values() if r.baseline}
    if not beaten:  # a run that is going on, or did not complete, counts in no mean
        told = [run.baseline for row in rows.values() for run in row.drawn if run.baseline]
        beaten = {(one.name, one.value) for one in told}
    levels += [
        (f"{name} {formatting.number(value, 4)}", value, "dotted")
        for name, value in sorted(beaten)[:MOST_METRICS]
    ]
    # Bokeh's ranges do not look at lines without an end, but at points that nobody sees.
    values = [value for _, value, _ in levels]
    figure.scatter([0.0] * len(values), values, alpha=0.0, nonselection_alpha=0.0)
    for text, value, dashes in levels:
        figure.add_layout(
            models.Span(location=value, dimension="width", line_dash=dashes, line_color="#888888")
        )
        figure.add_layout(
            models.Label(
                x=6,
                y=value,
                x_units="screen",
                text=text,
                text_font_size="12px",
                text_color="#888888",
                text_baseline="bottom",
            )
        )


def _units(rows: Sequence[Row], runs: Mapping[object, PageRun]) -> dict[str, tuple[float, str]]:
    """Return (size of a unit, what the axis says) for every axis."""
    drawn = [runs[run.directory].curve for row in rows for run in row.drawn]
    longest = {axis: max((c.x[axis][-1] for c in drawn if len(c)), default=0.0) for axis in AXES}
    clock_s, clock = formatting.time_unit(longest["clock"])
    wall_s, wall = formatting.time_unit(longest["wall"])
    num_bytes, size = formatting.size_unit(longest["bytes"])
    is_virtual = all(row.experiment["clock"] == "virtual" for row in rows)
    return {
        "updates": (1.0, "updates"),
        "versions": (1.0, "versions"),
        "clock": (clock_s, f"{'virtual time' if is_virtual else 'time'} ({clock})"),
        "wall": (wall_s, f"wall clock ({wall})"),
        "bytes": (num_bytes, f"traffic ({size})"),
    }


def _label(row: Row) -> str:
    seeds = f" ({len(row.drawn)} seeds)" if len(row.drawn) > 1 else ""
    return f"{row.name}{seeds}"


def _colour(place: int) -> str:
    return look.COLOURS[place % len(look.COLOURS)]


def _small(values: Any) -> Any:
    return np.asarray(values, dtype=np.float32)
