"""The table of runs: where their settings differ, and what came of it."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedagent import formatting
from fedagent.report.compare import Row
from fedagent.report.page import look
from fedagent.report.page.data import PageRun

ROW_HEIGHT, MOST_HEIGHT = 28, 420

FILTER = """
const words = this.value_input.toLowerCase().split(/\\s+/).filter(Boolean);
const texts = table.data.text;
const kept = [];
texts.forEach((text, i) => { if (words.every((word) => text.includes(word))) kept.push(i); });
view.filter.indices = kept;
const rows = new Set(kept.map((i) => table.data.row[i]));
for (const curve of curves) {
  const own = curve.data.row.flatMap((row, i) => rows.has(row) ? [i] : []);
  curve.selected.indices = kept.length === texts.length ? [] : own;
}
"""
PICK = """
const rows = new Set(this.indices.map((i) => table.data.row[i]));
for (const curve of curves)
  curve.selected.indices = curve.data.row.flatMap((row, i) => rows.has(row) ? [i] : []);
"""
CSV = """
const quoted = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
const lines = [Object.values(titles).map(quoted).join(",")];
for (const i of view.filter.indices)
  lines.push(Object.keys(titles).map((key) => quoted(table.data[key][i])).join(","));
const link = document.createElement("a");
link.href = URL.createObjectURL(new Blob([lines.join("\\n") + "\\n"], {type: "text/csv"}));
link.download = "runs.csv";
link.click();
URL.revokeObjectURL(link.href);
"""


def runs_table(
    rows: Sequence[Row], runs: Mapping[object, PageRun], curves: Sequence[Any]
) -> list[Any]:
    """Return a filter box, a button for CSV and the table, a row per run.

    Parameters
    ----------
    rows : as `compare` returns them; their runs are told, unfinished ones too.
    runs : folder -> what is known of it.
    curves : the sources of drawn curves, whose column "row" is the place in `rows`: those of runs
        that are filtered out or not picked are pale.
    """
    models = look.bokeh("models")
    told = [(place, run) for place, row in enumerate(rows) for run in (*row.runs, *row.unfinished)]
    settings = _differing([run.about for _, run in told])
    columns: dict[str, list[Any]] = {
        f"set_{n}": [_plain(run.about.get(key)) for _, run in told]
        for n, key in enumerate(settings)
    }
    titles = {f"set_{n}": key for n, key in enumerate(settings)}
    for key, (title, read) in _RESULTS.items():
        titles[key] = title
        columns[key] = [read(runs[run.directory]) for _, run in told]
    numeric = {
        key for key, values in columns.items() if not any(isinstance(v, str) for v in values)
    }
    text = [
        " ".join(f"{titles[key]}={columns[key][i]}" for key in columns).lower()
        for i in range(len(told))
    ]
    table = look.source("runs", **columns, text=text, row=[place for place, _ in told])
    view = models.CDSView(filter=models.IndexFilter(indices=list(range(len(told)))))
    shown = models.DataTable(
        source=table,
        view=view,
        columns=[
            models.TableColumn(
                field=key,
                title=title,
                formatter=_formatter(models, key in numeric),
                width=max(60, min(220, 14 + 7 * _widest(title, columns[key]))),
            )
            for key, title in titles.items()
        ],
        index_position=None,
        reorderable=False,
        height=min(MOST_HEIGHT, 40 + ROW_HEIGHT * len(told)),
        row_height=ROW_HEIGHT,
        sizing_mode="stretch_width",
        autosize_mode="fit_viewport" if len(titles) <= 12 else "none",
        stylesheets=[look.TABLE_CSS],
        name="table",
    )
    args = {"table": table, "view": view, "curves": list(curves)}
    words = look.styled(
        models.TextInput(placeholder="filter: fedbuff seed=1", name="filter", width=280)
    )
    words.js_on_change("value_input", models.CustomJS(args=args, code=FILTER))
    table.selected.js_on_change("indices", models.CustomJS(args=args, code=PICK))
    button = look.styled(models.Button(label="CSV", name="csv", width=70))
    button.js_on_event("button_click", models.CustomJS(args={**args, "titles": titles}, code=CSV))
    return [words, button, shown]


def _share(seconds: str, run: PageRun) -> float | None:
    part, whole = run.summary.get(seconds), run.summary.get("slots_s")
    return _cut(100 * part / whole) if part is not None and whole else None


_RESULTS: dict[str, tuple[str, Any]] = {
    "folder": ("folder", lambda run: run.record.directory.name),
    "end": ("end", lambda run: run.record.end.kind if run.is_over else "no end"),
    "final": ("final", lambda run: _cut(run.record.final_value)),
    "best": ("best", lambda run: _cut(run.summary.get("best_value"))),
    "time": ("s to target", lambda run: _cut(run.record.time_to_target_s)),
    "to_target": ("updates to target", lambda run: _cut(run.record.updates_to_target)),
    "updates": ("updates", lambda run: _cut(run.record.num_updates)),
    "clock": ("s in all", lambda run: _cut(run.summary.get("time_s"))),
    "bytes": ("MB", lambda run: _cut(run.record.num_bytes / 1e6)),
    "staleness": ("staleness", lambda run: _cut(run.record.staleness_mean)),
    "busy": ("% at work", lambda run: _cut(100 * run.record.utilisation)),
    "wasted": ("% wasted", lambda run: _share("wasted_s", run)),
}


def _differing(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for about in experiments for key in about)
    return [key for key in keys if len({_plain(about.get(key)) for about in experiments}) > 1]


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    is_plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    return value if is_plain else json.dumps(value, default=str)


def _cut(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(f"{value:.4g}") if is_number else None


def _formatter(models: Any, is_number: bool) -> Any:
    if is_number:
        return models.NumberFormatter(format="0,0.[0000]", text_align="right", nan_format="-")
    return models.StringFormatter(nan_format="-")


def _widest(title: str, values: Sequence[Any]) -> int:
    told = [formatting.number(v, 6) if isinstance(v, float) else str(v) for v in values]
    return max(map(len, [title, *told]))
