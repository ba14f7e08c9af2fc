"""Charts of a single run: its timeline, and what it says of its nodes."""

from typing import Any

import numpy as np

from fedagent import formatting
from fedagent.report.page import facts, look
from fedagent.report.page.data import PageRun
from fedagent.report.page.timeline import GROUPS, KINDS, MOST_TICKS, Nodes, Timeline, timeline_of

MOST_REASONS = 12


def timeline_chart(run: PageRun, nodes: Nodes) -> tuple[Any, str]:
    """Return the timeline and what must be said beside it; None if no job says when it ended."""
    timeline = timeline_of(nodes)
    if not len(timeline.jobs):
        return None, "No job says when it ended, so there is no timeline."
    models = look.bokeh("models")
    unit_s, unit = formatting.time_unit(float(timeline.right.max()))
    num_rows = len(timeline.nodes)
    figure = look.figure(
        "",
        max(240, min(640, 130 + 9 * num_rows)),
        name="timeline",
        y_range=(-0.8, num_rows + 0.2),
        tools="xpan,box_zoom,xwheel_zoom,reset,save",
        active_drag="box_zoom",
    )
    figure.toolbar.autohide = False
    figure.xaxis.axis_label = f"{'virtual time' if run.record.is_virtual else 'time'} ({unit})"
    figure.ygrid.visible = False
    figure.y_range.bounds = figure.x_range.bounds = "auto"
    _group_labels(figure, nodes, timeline)
    renderers = []
    for kind, name in enumerate(KINDS):
        shown = look.source(f"jobs-{kind}", **_bars(timeline, kind, unit_s))
        bars = figure.quad(
            left="left",
            right="right",
            bottom="bottom",
            top="top",
            source=shown,
            fill_color=look.OF_KIND[kind],
            line_color=None,
            **(
                {"hatch_pattern": "/", "hatch_alpha": 0.6} if name in ("failed", "rejected") else {}
            ),
        )
        if len(shown.data["left"]):
            renderers.append((name, bars))
    ticks = run.versions.x["clock"]
    kept = ticks[:: max(1, -(-len(ticks) // MOST_TICKS))] / unit_s
    versions = look.source("versions", x=kept.astype(np.float32))
    marks = figure.segment(
        "x", num_rows - 0.4, "x", num_rows + 0.1, source=versions, color="#888888", line_width=1
    )
    items = [models.LegendItem(label=name, renderers=[bars]) for name, bars in renderers]
    look.legend_below(figure, [*items, models.LegendItem(label="version", renderers=[marks])])
    told = [("node", "@node"), ("", "@what"), ("took", "@took{0.00} s")]
    look.tooltip(figure, told, [bars for _, bars in renderers])
    return figure, _said(timeline, len(ticks), len(kept))


def staleness_chart(nodes: Nodes) -> Any:
    """Return the staleness of every group's updates as ranges; None without any."""
    found = facts.staleness_by_group(nodes)
    if not found:
        return None
    names = [name for name in (*GROUPS, "unknown") if name in found]
    values = np.array([found[name] for name in names])
    columns = dict(zip(("q05", "q25", "q50", "q75", "q95"), values.T, strict=True))
    shown = look.source(
        "staleness", name=names, colour=[look.OF_GROUP[n] for n in names], **columns
    )
    figure = look.figure(
        "Staleness of updates, by speed of the node",
        240,
        x_range=names,
        tools="save",
        name="staleness",
    )
    figure.yaxis.axis_label = "versions"
    figure.segment("name", "q05", "name", "q95", source=shown, color="colour", line_width=2)
    bars = figure.vbar(
        x="name", bottom="q25", top="q75", width=0.4, source=shown, color="colour", alpha=0.55
    )
    dots = figure.scatter("name", "q50", source=shown, size=11, color="colour")
    told = [("half of them", "@q25 to @q75"), ("median", "@q50"), ("5 to 95 %", "@q05 to @q95")]
    look.tooltip(figure, told, [bars, dots])
    figure.y_range.start = 0
    return figure


def shares_chart(nodes: Nodes) -> Any:
    """Return a dot per node, its share of the data against its share of the influence."""
    found = facts.shares(nodes)
    if found is None:
        return None
    most = facts.MOST_NODES
    groups = [nodes.group[place] for place in found.nodes[:most]]
    shown = look.source(
        "shares",
        data=100 * found.data[:most],
        influence=100 * found.influence[:most],
        colour=[look.OF_GROUP[group] for group in groups],
        group=groups,
        node=[nodes.ids[place] for place in found.nodes[:most]],
    )
    figure = look.figure("Influence against data, a dot per node", 240, name="shares", tools="save")
    figure.xaxis.axis_label, figure.yaxis.axis_label = "share of the data (%)", "of influence (%)"
    end = float(100 * max(found.data.max(), found.influence.max()))
    figure.line([0, end], [0, end], line_dash="dashed", color="#888888")
    dots = figure.scatter("data", "influence", source=shown, size=8, color="colour", alpha=0.8)
    told = [("node", "@node (@group)"), ("data", "@data %"), ("influence", "@influence %")]
    look.tooltip(figure, told, [dots])
    return figure


def losses_chart(run: PageRun) -> Any:
    """Return how often jobs did not end as applied, by reason; None if all did."""
    found = list(facts.losses(run).items())[:MOST_REASONS][::-1]
    if not found:
        return None
    names = [formatting.printable(name, 60) for name, _ in found]
    if len(set(names)) < len(names):  # cut to the same text
        names = [f"{name} [{place}]" for place, name in enumerate(names)]
    shown = look.source("losses", name=names, count=[count for _, count in found])
    figure = look.figure(
        "Jobs that were not applied, by reason", max(160, 80 + 26 * len(names)), y_range=names,
        name="losses", tools="save",
    )  # fmt: skip
    bars = figure.hbar(y="name", right="count", height=0.6, source=shown, color="#D55E00")
    look.tooltip(figure, [("", "@name"), ("jobs", "@count")], [bars])
    figure.x_range.start = 0
    return figure


def fill_chart(run: PageRun) -> Any:
    """Return how many updates every version holds; None where it is one in each."""
    fill = run.versions.y
    if not len(fill) or (fill == fill[0]).all():
        return None
    kept = slice(None, None, max(1, -(-len(fill) // MOST_TICKS)))
    shown = look.source("fill", x=run.versions.x["versions"][kept], y=fill[kept])
    figure = look.figure("Updates in every version", 240, name="fill", tools="save")
    figure.xaxis.axis_label, figure.yaxis.axis_label = "version", "updates"
    dots = figure.scatter("x", "y", source=shown, size=4, color="#0072B2", alpha=0.7)
    look.tooltip(figure, [("version", "@x"), ("updates", "@y")], [dots])
    figure.y_range.start = 0
    return figure


def parts_chart(run: PageRun) -> Any:
    """Return the newest value of every part of the metric, such as a class; None without parts."""
    prefix = f"{run.record.metric.name}-"
    parts = {name.removeprefix(prefix): value for name, value in run.parts.items()}
    if not 2 <= len(parts) <= 40:
        return None
    shown = look.source("parts", name=list(parts), value=list(parts.values()))
    figure = look.figure(
        f"{run.record.metric.name} by part, at the end", 240, x_range=list(parts), name="parts",
        tools="save",
    )  # fmt: skip
    bars = figure.vbar(x="name", top="value", width=0.7, source=shown, color="#0072B2", alpha=0.8)
    look.tooltip(figure, [("", "@name"), ("", "@value{0.0000}")], [bars])
    figure.y_range.start = min(0.0, *parts.values())
    return figure


def _bars(timeline: Timeline, kind: int, unit_s: float) -> dict[str, Any]:
    own = np.flatnonzero(timeline.kind == kind)
    jobs = [timeline.jobs[place] for place in own.tolist()]
    row = timeline.row[own].astype(np.float32)
    return {
        "left": (timeline.left[own] / unit_s).astype(np.float32),
        "right": (timeline.right[own] / unit_s).astype(np.float32),
        "bottom": row - 0.42,
        "top": row + 0.42,
        "node": [job.node_id for job in jobs],
        "what": [_what(job.outcome, job.reason, job.staleness, job.version) for job in jobs],
        "took": np.array([job.duration_s for job in jobs], dtype=np.float32),
    }


def _what(outcome: str, reason: str, staleness: int | None, version: int | None) -> str:
    said = formatting.printable(reason, 60) if reason else ""
    late = "" if staleness is None else f"staleness {staleness}"
    base = "" if version is None else f"of version {version}"
    return " ".join(filter(None, [outcome, said, late, base]))


def _group_labels(figure: Any, nodes: Nodes, timeline: Timeline) -> None:
    models = look.bokeh("models")
    groups = [nodes.group[place] for place in timeline.nodes]
    middle, edges = {}, []
    for group in dict.fromkeys(groups):
        rows = [row for row, own in enumerate(groups) if own == group]
        middle[(rows[0] + rows[-1]) / 2] = group
        edges.append(rows[0] - 0.5)
    figure.yaxis.ticker = models.FixedTicker(ticks=list(middle))
    figure.yaxis.major_label_overrides = middle
    figure.yaxis.major_tick_line_color = None
    for edge in edges[1:]:
        figure.add_layout(
            models.Span(location=edge, dimension="width", line_color="#888888", line_width=0.6)
        )


def _said(timeline: Timeline, num_versions: int, num_ticks: int) -> str:
    rows, bars = len(timeline.nodes), len(timeline.jobs)
    said = f"{bars:,} jobs of {rows:,} nodes. What is blank is idle or waiting."
    if timeline.is_sampled:
        said = (
            f"A sample: {bars:,} of {timeline.num_bars:,} jobs, those of {rows:,} of "
            f"{timeline.num_rows:,} nodes, evenly from fast to slow. What is blank is idle or "
            "waiting."
        )
    if num_ticks < num_versions:
        said += f" Every {-(-num_versions // num_ticks)}th version has a tick."
    return said
