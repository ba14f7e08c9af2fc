"""One HTML file that needs nothing else: charts, facts, table, showcase, how to repeat the run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fedagent.errors import require
from fedagent.report.compare import compare
from fedagent.report.page import look, node_charts, sections
from fedagent.report.page.data import PageRun
from fedagent.report.page.metric_chart import metric_charts
from fedagent.report.page.runs_table import runs_table
from fedagent.report.page.timeline import nodes_of

_HERE = Path(__file__).parent
_COMPONENTS = ["bokeh", "bokeh-widgets", "bokeh-tables"]


@dataclass(frozen=True)
class Page:
    """A page before it is text.

    Attributes
    ----------
    title : of the page.
    charts : Bokeh's models by the name of their place in `body`, written ``{{name}}``.
    body : HTML.
    """

    title: str
    charts: dict[str, Any]
    body: str


def page_of(runs: Sequence[PageRun]) -> Page:
    """Return the page of a run, or of several side by side.

    Raises
    ------
    ConfigurationError
        Without any run.
    DataUnavailableError
        Without Bokeh.
    """
    require(bool(runs), "There is no run to make a page of.")
    by_folder: dict[object, PageRun] = {run.record.directory: run for run in runs}
    rows = compare(run.record for run in runs)
    drawn = {i: row for i, row in enumerate(rows) if any(run.curve for run in row.drawn)}
    charts: dict[str, Any] = {}
    switch_and_figures = metric_charts(drawn, by_folder)
    names = _place(charts, "metric", switch_and_figures)
    parts = []
    if len(runs) == 1:
        parts += [f'<div id="cards">{sections.cards(runs[0])}</div><div id="nodes"></div>']
    parts.append(
        sections.section("Metric", names or '<p class="faint">No run has a value of it.</p>')
    )
    if len(runs) == 1:
        parts += _of_one(runs[0], charts)
    else:
        curves = _sources(switch_and_figures, "curve-")
        table = runs_table(rows, by_folder, curves)
        names = _place(charts, "table", table)
        parts.append(sections.section(f"{len(runs):,} runs", names))
        parts.append(
            '<p class="faint">Timeline, nodes and configuration are on the page of each run: '
            "<code>fedagent report --html FILE FOLDER</code>.</p>"
        )
    parts.append(sections.problems(runs))
    title = rows[0].name if len(rows) == 1 else f"{len(runs):,} runs"
    return Page(title, charts, "".join(parts))


def html_of(page: Page, extra: str = "", script: str = "") -> str:
    """Return the file's text.

    Parameters
    ----------
    page : from `page_of`.
    extra : HTML above everything, such as a live view's progress.
    script : JavaScript that runs when the charts are there.
    """
    resources = look.bokeh("resources").Resources(mode="inline", components=_COMPONENTS)
    body = page.body
    embedded = ""
    if page.charts:
        embedded, divs = look.bokeh("embed").components(page.charts)
        for name, div in divs.items():
            body = body.replace(f"{{{{{name}}}}}", div, 1)
    css, js = ((_HERE / file).read_text(encoding="utf-8") for file in ("page.css", "page.js"))
    title = escape(page.title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · fedagent</title>
<link rel="icon" href="data:,">
<style>{css}</style>
{resources.render_js()}
{embedded}
</head>
<body>
<main>
<header><h1>{title}</h1><span class="faint">fedagent</span>
<button id="theme" class="noprint" title="light or dark">light / dark</button></header>
{extra}
{body}
</main>
<script>{js}{script}</script>
</body>
</html>
"""


def _of_one(run: PageRun, charts: dict[str, Any]) -> list[str]:
    nodes = nodes_of(run.jobs)
    parts = [sections.slots(run)]
    figures = {
        "staleness": node_charts.staleness_chart(nodes),
        "shares": node_charts.shares_chart(nodes),
        "losses": node_charts.losses_chart(run),
        "fill": node_charts.fill_chart(run),
        "parts": node_charts.parts_chart(run),
    }
    figures = {name: figure for name, figure in figures.items() if figure is not None}
    notes = {"shares": _OF_SHARES, "staleness": _OF_STALENESS}
    told = [
        f"<section>{_place(charts, name, [figure])}"
        f'<p class="faint">{notes.get(name, "")}</p></section>'
        for name, figure in figures.items()
    ]
    if "losses" not in figures:
        told.append(sections.section("Failures by reason", "<p>Every job was applied.</p>"))
    told += [sections.influence(run), sections.fruitless(run)]
    timeline, said = node_charts.timeline_chart(run, nodes) if run.jobs else (None, _NO_JOBS)
    chart = _place(charts, "timeline", [timeline]) if timeline is not None else ""
    groups = sections.groups(nodes) if run.jobs else ""
    help_ = f'<p class="faint noprint">{_ZOOM}</p>' if timeline is not None else ""
    parts.append(sections.section("Timeline", f"<p>{escape(said)}</p>{groups}{chart}{help_}"))
    parts.append(f'<div class="two">{"".join(told)}</div>')
    parts.append('<div id="log"></div>')
    return [*parts, sections.showcase(run), sections.how_to_repeat(run)]


_NO_JOBS = "No job is recorded: a run without updates, or one of an earlier version."
_ZOOM = (
    "Drag to zoom in, Ctrl and wheel to zoom, the first tool to pan, the circle to go back; a "
    "legend's entry hides its jobs."
)
_OF_SHARES = (
    "Influence: s(tau), the rule's staleness weight, summed over a node's updates. What else the "
    "rule weighs by, such as examples, is not in it. On the dashed line both are equal."
)
_OF_STALENESS = "Dot: median. Bar: the middle half. Line: 5 to 95 %."


def _place(charts: dict[str, Any], name: str, models: Iterable[Any]) -> str:
    """Take models into the charts; return the HTML of their places, widgets side by side."""
    tools: list[str] = []
    places: list[str] = []
    for number, model in enumerate(models):
        key = f"{name}-{number}"
        charts[key] = model
        is_large = hasattr(model, "x_range") or hasattr(model, "columns")  # a figure or a table
        (places if is_large else tools).append(f"{{{{{key}}}}}")
    row = f'<div class="tools noprint">{"".join(tools)}</div>' if tools else ""
    return row + "".join(places)


def _sources(models: Iterable[Any], prefix: str) -> list[Any]:
    renderers = [one for model in models for one in getattr(model, "renderers", ())]
    sources = {one.data_source.id: one.data_source for one in renderers}
    return [one for one in sources.values() if str(one.name).startswith(prefix)]
