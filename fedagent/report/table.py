"""Rows of a comparison as a table for people and as JSON for programs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from fedagent import formatting
from fedagent.report.compare import Row, Spread, shared
from fedagent.report.runs import RunRecord

NOTHING = "-"

Unit = Callable[[float], tuple[float, str]]
"""A mean -> (how much one unit is, its name)."""
Columns = dict[str, Callable[[Row], str]]
"""Title -> what a row has to say about it."""


def render(rows: Sequence[Row]) -> Table:
    """Return the rows as a table: mean ± sample standard deviation over the seeds.

    A value that not every seed has (a seed never reached the target, or its metric is not finite)
    counts the seeds that have it and carries a ``*``. Speed-ups are against the first row with
    the same app, fleet, links, partition and target; the caption says so as well.
    """
    return _table(rows, _result_columns(rows) | _cost_columns())


def render_in_two(rows: Sequence[Row]) -> Group:
    """Return what `render` returns as two tables, results and costs, that 80 columns hold."""
    return Group(_table(rows, _result_columns(rows)), _table(rows, _cost_columns()))


def to_json(rows: Sequence[Row]) -> str:
    """Return the rows as a JSON array; a run is the path of its folder and its seed."""
    return formatting.to_json([_plain(row) for row in rows], indent=2)


def _plain(row: Row) -> dict[str, Any]:
    values = asdict(replace(row, runs=(), unfinished=()))
    runs, unfinished = list(map(_run, row.runs)), list(map(_run, row.unfinished))
    return values | {"num_seeds": len(runs), "runs": runs, "unfinished": unfinished}


def _run(run: RunRecord) -> dict[str, Any]:
    return {
        "directory": str(run.directory),
        "seed": run.about.get("seed"),
        "end": asdict(run.end),
    }


def _no_unit(_: float) -> tuple[float, str]:
    return 1.0, ""


def _percent(_: float) -> tuple[float, str]:
    return 0.01, "%"


def _cell(row: Row, spread: Spread | None, unit: Unit = _no_unit, digits: int = 3) -> str:
    if spread is None:
        return NOTHING
    per_unit, name = unit(spread.mean)
    mean, std = spread.mean / per_unit, (spread.std or 0.0) / per_unit
    if std > 1e-9 * abs(mean):  # two digits of the deviation, and as many decimals for the mean
        decimals = max(0, 1 - math.floor(math.log10(std)))
        lines = [f"{mean:,.{decimals}f}", f"±{std:,.{decimals}f}"]
    else:
        lines = [formatting.number(mean, digits)]
    if spread.count < len(row.runs):
        lines[0] += "*"
    return "\n".join(f"{line} {name}".rstrip() for line in lines)


def _result_columns(rows: Sequence[Row]) -> Columns:
    common = shared(rows) if rows else {}
    metric = escape(str(common.get("metric", "metric")))
    columns: Columns = {}
    if all(row.experiment["target"] is None for row in rows):
        columns["seeds"] = lambda row: str(len(row.runs))
    else:
        goal = f"{metric} {common['target']:g}" if "target" in common else "its target"
        clock = f"{common['clock']} time" if "clock" in common else "time"
        columns |= {
            f"{clock} to\n{goal}": lambda row: _cell(
                row, row.time_to_target_s, formatting.time_unit
            ),
            "speed-up": lambda row: f"{row.speed_up:.2f}x" if row.speed_up else NOTHING,
            "updates\nto target": lambda row: _cell(row, row.updates_to_target),
            "seeds\nreached": lambda row: f"{row.num_reached}/{len(row.runs)}",
        }
    columns[f"final\n{metric}"] = lambda row: _cell(row, row.final_value, digits=4)
    if any(row.baseline for row in rows):
        names = {row.baseline_name for row in rows if row.baseline}
        name = escape(names.pop() or "baseline") if len(names) == 1 else "baseline"
        columns[name.replace(" ", "\n", 1)] = lambda row: _cell(row, row.baseline, digits=4)
    return columns


def _cost_columns() -> Columns:
    return {
        "updates": lambda row: _cell(row, row.num_updates),
        "traffic": lambda row: _cell(row, row.num_bytes, formatting.size_unit),
        "staleness\nmean": lambda row: _cell(row, row.staleness_mean),
        "\nmax": lambda row: (
            NOTHING if row.staleness_max is None else formatting.number(row.staleness_max)
        ),
        "utili-\nsation": lambda row: _cell(row, row.utilisation, _percent),
    }


def _table(rows: Sequence[Row], columns: Columns) -> Table:
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        collapse_padding=True,
        caption="\n".join(_notes(rows, columns, cells)),
        caption_justify="left",
        caption_style="dim",
    )
    table.add_column("run", min_width=12, overflow="fold")
    for title in columns:
        # A number is whole or marked as cut, never folded: half a number is another number.
        table.add_column(title, justify="right", no_wrap=True, overflow="ellipsis")
    for row, values in zip(rows, cells, strict=True):
        name = escape(row.name).replace(" ", "\n")
        table.add_row(f"{name}\n({row.remark})" if row.remark else name, *values)
    return table


def _notes(rows: Sequence[Row], columns: Columns, cells: Sequence[Sequence[str]]) -> Iterator[str]:
    text = " ".join(cell for row in cells for cell in row)
    if "±" in text:
        yield "± is the sample standard deviation over seeds."
    if "traffic" in columns:
        yield "Traffic is model bytes in both directions."
    if "speed-up" in columns:
        yield (
            "Speed-up: the time to target of the first row with the same app, fleet, links, "
            "partition and target, divided by the row's own."
        )
    if any(row.remark for row in rows):
        yield "Runs that stalled, failed or were stopped are counted under the name, nowhere else."
    if "*" in text:
        yield "* only over the seeds that reached the target or have a finite value."
