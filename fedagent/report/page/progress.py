"""How far a run is that goes on: what is left, its nodes, the last lines of its log."""

import time
from collections.abc import Sequence
from pathlib import Path

from fedagent import formatting
from fedagent.report.at_work import AT_WORK_FILE, read_at_work
from fedagent.report.jobs import Job
from fedagent.report.page.data import PageRun
from fedagent.report.page.sections import escaped, section
from fedagent.report.run_log import LOG_FILE
from fedagent.report.runs import METRICS_FILE
from fedagent.update import Outcome

MOST_NODES = 100
MOST_LINES = 40
_TAIL_BYTES = 16_384
_SILENT_S = 60.0


def progress(run: PageRun) -> str:
    """Return how far the run is and what is left, as HTML."""
    if run.is_over:
        return section("Progress", f"<p>Over: {escaped(run.record.end)}.</p>")
    share, goal = share_done(run)
    told = [goal] if goal else [f"{run.record.num_updates:,.0f} updates so far"]
    wall_s = float(run.versions.x["wall"][-1]) if len(run.versions) else 0.0
    if 0 < share < 1:
        told.append(f"about {formatting.duration(wall_s * (1 - share) / share)} left")
    silent_s = _silent_s(run.record.directory)
    if silent_s is not None and silent_s > _SILENT_S:
        told.append(f"nothing was written for {formatting.duration(silent_s)}")
    bar = f'<div class="bar"><i style="width:{100 * share:.1f}%;background:#0072B2"></i></div>'
    return section("Progress", f"<p>{escaped(' · '.join(told))}</p>{bar if share else ''}")


def share_done(run: PageRun) -> tuple[float, str]:
    """Return the share of the way to the nearest limit, and that in words; 0 without a limit."""
    limits = run.beginning.get("limits") or {}
    newest = {axis: float(x[-1]) if len(x) else 0.0 for axis, x in run.versions.x.items()}
    done = {name: newest[axis] for name, axis in _AXIS.items()}
    shares = {
        name: min(1.0, done[name] / limit)
        for name, limit in limits.items()
        if name in done and isinstance(limit, int | float) and limit > 0
    }
    if not shares:
        return 0.0, ""
    name = max(shares, key=lambda one: shares[one])
    words = f"{done[name]:,.0f} of {limits[name]:,.0f} {name} ({shares[name]:.0%})"
    return shares[name], words


def nodes(run: PageRun) -> str:
    """Return the nodes, those with failures first, as HTML; of many the first hundred."""
    problem, by_id = "", dict[str, list[Job]]()
    try:
        now_s, doing = read_at_work(run.record.directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        now_s, doing, problem = 0.0, {}, f"{AT_WORK_FILE} cannot be read ({error!r})."
    for node_id in doing:
        by_id[node_id] = []
    for job in run.jobs:
        by_id.setdefault(job.node_id, []).append(job)
    if not by_id:
        return section("Nodes", "<p>No node has got work yet.</p>")
    now_s = max(now_s, *run.versions.x["clock"][-1:])
    failed = {n: sum(j.outcome != Outcome.APPLIED for j in own) for n, own in by_id.items()}
    ended_s = {n: own[-1].ended_s or 0.0 if own else 0.0 for n, own in by_id.items()}
    order = sorted(by_id, key=lambda n: (-failed[n], ended_s[n]))
    lines = [
        _line(n, "; then ".join(doing.get(n, ["idle"])), by_id[n], failed[n], now_s)
        for n in order[:MOST_NODES]
    ]
    more = len(order) - len(lines)
    told = [f"and {more:,} more"] if more > 0 else []
    rest = "".join(f'<p class="faint">{escaped(one)}</p>' for one in (*told, problem) if one)
    heads = "node", "doing", "jobs", "not applied", "last job ended", "how", "of version"
    head = "".join(f"<th>{title}</th>" for title in heads)
    table = f'<table class="plain"><tr>{head}</tr>{"".join(lines)}</table>'
    return f"<details open><summary>{len(by_id):,} nodes</summary>{table}{rest}</details>"


def log_tail(directory: Path) -> str:
    """Return the last lines of the run's log as HTML."""
    path = directory / LOG_FILE
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()[-MOST_LINES:]
    except FileNotFoundError:
        return section("Log", '<p class="faint">No line yet.</p>')
    except OSError as error:
        return section("Log", f"<p>{escaped(f'{path.name} cannot be read ({error})')}.</p>")
    text = "\n".join(formatting.printable(line, 400) for line in lines)
    return section("Log", f"<pre>{escaped(text)}</pre>")


_AXIS = {"updates": "updates", "versions": "versions", "seconds": "clock"}


def _line(node_id: str, doing: str, jobs: Sequence[Job], failed: int, now_s: float) -> str:
    cells = [node_id, doing, f"{len(jobs):,}", f"{failed:,}", "", "", ""]
    if jobs:
        last = jobs[-1]
        if last.ended_s is not None:
            cells[4] = f"{formatting.duration(max(0, now_s - last.ended_s))} ago"
        cells[5] = f"{last.outcome} {formatting.printable(last.reason, 60)}"
        cells[6] = "" if last.version is None else f"{last.version:,}"
    return f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in cells)}</tr>"


def _silent_s(directory: Path) -> float | None:
    try:
        return time.time() - (directory / METRICS_FILE).stat().st_mtime
    except OSError:
        return None
