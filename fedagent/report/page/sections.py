"""The parts of a page that are text: everything that a run or a client has written is escaped."""

import base64
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fedagent import formatting
from fedagent.report.page import facts, look
from fedagent.report.page.data import PageRun
from fedagent.report.page.timeline import Nodes
from fedagent.report.recorder import PLOT_FILE
from fedagent.report.runs import SUMMARY_FILE, RunRecord

MOST_PICTURE_BYTES = 1_500_000
"""Of all pictures of a page together; the others are named."""
MOST_NAMED = 20
_TOLD = {
    "useful": "behind updates, as fresh ones",
    "discounted": "behind updates, lateness: 1 - (1 + tau)^-1/2, a yardstick whatever the rule",
    "wasted": "behind jobs that failed, were refused, expired or were cut off at the end",
    "idle": "idle slots",
}


def cards(run: PageRun) -> str:
    """Return the run's main numbers; what was not recorded is left out."""
    record, summary = run.record, run.summary
    number = formatting.number
    told = [(_value(record.final_value, 4), f"{record.metric.name} at the end")]
    if (best := summary.get("best_value")) is not None:
        told.append((number(best, 4), "at best"))
    if record.target is not None:
        told.append(_reached(record))
    if record.baseline is not None:
        told.append((number(record.baseline.value, 4), f"to beat: {record.baseline.name}"))
    told.append((f"{record.num_updates:,.0f}", "updates"))
    if (num_versions := _so_far(run, "num_versions", "versions")) is not None:
        told.append((f"{num_versions:,.0f}", "versions"))
    if record.is_virtual and (clock_s := _so_far(run, "time_s", "clock")) is not None:
        told.append((formatting.duration(clock_s), "virtual time"))
    if (wall_s := _so_far(run, "wall_time_s", "wall")) is not None:
        told.append((formatting.duration(wall_s), "on the wall"))
    told.append((formatting.size(record.num_bytes), "traffic"))
    stale = f"mean {number(record.staleness_mean)}, max {number(record.staleness_max)}"
    told.append((stale, "staleness, in versions"))
    if "buffered" in summary:
        told.append((f"{summary['buffered']:,}", "updates in the buffer at the end"))
    slow = {key: value for key, value in run.parts.items() if "slow" in key}
    told += [(number(value, 4), key) for key, value in list(slow.items())[:2]]
    divs = (
        f'<div class="card"><b>{escaped(value)}</b><span>{escaped(what)}</span></div>'
        for value, what in told
    )
    return f'<div class="cards">{"".join(divs)}</div>'


def _so_far(run: PageRun, key: str, axis: str) -> float | None:
    """Return what the summary says, or of a run without one its newest version; None without."""
    newest = float(run.versions.x[axis][-1]) if len(run.versions) else None
    said: float | None = run.summary.get(key, newest)
    return said


def slots(run: PageRun) -> str:
    """Return what became of the slots' time, as a bar."""
    found = facts.slot_time(run)
    if found is None:
        return _missing("Where the slots' time went", "the run's summary does not tell")
    parts = {name: getattr(found, name) for name in _TOLD}
    bars = "".join(
        f'<i style="width:{100 * share:.3f}%;background:{look.OF_TIME[name]}" '
        f'title="{_TOLD[name]}"></i>'
        for name, share in parts.items()
    )
    key = "".join(
        f'<span><i style="background:{look.OF_TIME[name]}"></i>{share:.1%} {_TOLD[name]}</span>'
        for name, share in parts.items()
    )
    return section(
        "Where the slots' time went", f'<div class="bar">{bars}</div><div class="key">{key}</div>'
    )


def fruitless(run: PageRun) -> str:
    """Return the nodes whose every update was refused, and what else brought nothing."""
    found = facts.fruitless(run)
    title = "Nodes that brought nothing"
    if not run.is_over:
        return _missing(title, "the run's end tells")
    lines = [
        f"<tr><td>{escaped(node)}</td><td>{escaped(_counts(counts))}</td></tr>"
        for node, counts in list(found.items())[:MOST_NAMED]
    ]
    rest = len(found) - len(lines)
    body = f'<table class="plain">{"".join(lines)}</table>' if lines else "<p>None.</p>"
    body += f'<p class="faint">and {rest:,} more</p>' if rest > 0 else ""
    if lost := run.summary.get("lost"):
        body += f"<p>Updates that no version will ever hold: {escaped(_counts(lost))}.</p>"
    if strange := run.summary.get("delta_like_nodes"):
        names = ", ".join(list(strange)[:MOST_NAMED])
        body += f"<p>Nodes that seem to send changes, not models: {escaped(names)}.</p>"
    return section(title, body)


def influence(run: PageRun) -> str:
    """Return the nodes that the model owes most to, by their share of the weight of all updates."""
    found = run.summary.get("most_influential_nodes")
    if not found:
        return ""
    lines = "".join(
        f"<tr><td>{escaped(str(node))}</td><td>{float(share):.1%}</td></tr>"
        for node, share in found.items()
    )
    return section("Nodes with the most influence", f'<table class="plain">{lines}</table>')


def problems(runs: Iterable[PageRun]) -> str:
    """Return what could not be read; empty if all could be."""
    told = [
        f"<p>{escaped(run.record.directory.name)}: {escaped(said)}</p>"
        for run in runs
        for said in (
            *(said for said in run.problems if run.is_over or not said.startswith(SUMMARY_FILE)),
            *([] if run.record.end.is_complete else [_end(run)]),
        )
    ]
    if not told:
        return ""
    more = f"<p>and {len(told) - MOST_NAMED:,} more</p>" if len(told) > MOST_NAMED else ""
    body = "".join(told[:MOST_NAMED]) + more
    return f'<section class="warn"><h2>What is missing</h2>{body}</section>'


def showcase(run: PageRun) -> str:
    """Return the application's pictures and texts; empty without any."""
    folder = (run.record.directory / PLOT_FILE).parent
    left, shown = MOST_PICTURE_BYTES, []
    for path in sorted(folder.glob("*.png")) + sorted(folder.glob("*.txt")):
        if path.name == Path(PLOT_FILE).name:
            continue
        try:
            data = path.read_bytes()
        except OSError as error:
            shown.append(f"<p>{escaped(path.name)} cannot be read ({escaped(error)}).</p>")
            continue
        if len(data) > left:
            shown.append(f"<p>{escaped(path.name)} is too large for the page.</p>")
            continue
        left -= len(data)
        name = escaped(path.stem)
        if path.suffix == ".txt":
            text = escaped(data.decode("utf-8", errors="replace"))
            shown.append(f"<figure><h2>{name}</h2><pre>{text}</pre></figure>")
        else:
            uri = base64.b64encode(data).decode()
            shown.append(
                f'<figure><h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{uri}">'
                "</figure>"
            )
    return (
        section("What the model does", f'<div class="two">{"".join(shown)}</div>') if shown else ""
    )


def how_to_repeat(run: PageRun) -> str:
    """Return the command, the configuration, the versions of software and the model's digest."""
    words = run.beginning.get("overrides")
    parts = []
    if words is not None:
        command = shlex.join(["fedagent", "run", *map(str, words)])
        if not run.record.is_virtual:
            command = f"flwr run . NAME --run-config {shlex.quote(_override(shlex.join(words)))}"
        parts.append(f"<h2>The command that repeats the run</h2><pre>{escaped(command)}</pre>")
    if digest := run.summary.get("params_sha256"):
        parts.append(f"<p>sha256 of the final model: <code>{escaped(digest)}</code></p>")
    told = {**(run.says("software") or {}), **(run.says("machine") or {})}
    told |= {"begun": run.beginning.get("begun")}
    parts.append(_plain_table({k: v for k, v in told.items() if v is not None}))
    config = run.beginning.get("config")
    text = OmegaConf.to_yaml(OmegaConf.create(config)) if config else _yaml(run.record.about)
    parts.append(f"<details><summary>Configuration</summary><pre>{escaped(text)}</pre></details>")
    return section("How it was made", "".join(parts))


def groups(nodes: Nodes) -> str:
    """Return what fast, middle and slow mean here."""
    told = []
    for name in dict.fromkeys(nodes.group):
        speeds = [s for s, g in zip(nodes.speed_s, nodes.group, strict=True) if g == name]
        if name == "unknown":
            told.append(f"{len(speeds):,} nodes did no job")
            continue
        low, high = formatting.number(min(speeds)), formatting.number(max(speeds))
        told.append(f"{len(speeds):,} {name}: {low} to {high} s per step")
    return f'<p class="faint">{escaped("; ".join(told))}.</p>'


def section(title: str, body: str) -> str:
    """Return a section of the page; the title is escaped, the body is HTML."""
    return f"<section><h2>{escaped(title)}</h2>{body}</section>"


def _reached(record: RunRecord) -> tuple[str, str]:
    goal = f"{record.metric.name} {formatting.number(record.target or 0.0, 4)}"
    if record.time_to_target_s is None:
        return "not reached", goal
    how = "virtual, " if record.is_virtual else ""
    time = formatting.duration(record.time_to_target_s)
    return time, f"{how}{record.updates_to_target:,.0f} updates, to {goal}"


def _end(run: PageRun) -> str:
    end = run.record.end
    return f"The run {end}." if run.is_over else f"There is {end.detail}."


def _missing(title: str, reason: str) -> str:
    return section(title, f'<p class="faint">Not shown: {escaped(reason)}.</p>')


def _plain_table(told: Mapping[str, Any]) -> str:
    lines = (f"<tr><th>{escaped(k)}</th><td>{escaped(v)}</td></tr>" for k, v in told.items())
    return f'<table class="plain">{"".join(lines)}</table>'


def _counts(counts: Mapping[str, Any]) -> str:
    said: Sequence[str] = [
        f"{n} {formatting.printable(str(name), 80)}" for name, n in counts.items()
    ]
    return ", ".join(said)


def _override(words: str) -> str:
    return f"overrides={json.dumps(words)}"


def _yaml(value: Mapping[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(dict(value)))


def _value(value: float | None, digits: int) -> str:
    return "-" if value is None else formatting.number(value, digits)


def escaped(value: object) -> str:
    """Return text that is safe in HTML, in attributes too."""
    return escape(str(value), quote=True)
