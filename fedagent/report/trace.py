"""The jobs of a run as a Chrome trace, which Perfetto (ui.perfetto.dev) and Chrome open.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Trace Event Format)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedagent.errors import require
from fedagent.formatting import printable, to_json
from fedagent.report.files import replacing
from fedagent.report.page.data import PageRun
from fedagent.report.page.timeline import nodes_of

_PROCESS = 1
_VERSIONS = 0
"""The row of the versions; a node's is its place from fast to slow, from 1 on."""


def write_trace(run: PageRun, target: Path) -> int:
    """Write the jobs of a run, read with its jobs, to `target`; return how many there are.

    Raises
    ------
    ConfigurationError
        If no job says when it ended.
    OutputError
        If the file cannot be written.
    """
    events = list(_events(run))
    num_jobs = len([event for event in events if event["ph"] == "X"])
    require(
        num_jobs > 0,
        f"{run.record.directory} tells of no job when it ended, so there is no trace: a "
        "run writes a line for each into jobs.jsonl.",
    )
    told = {"traceEvents": events, "displayTimeUnit": "ms"}
    with replacing(target) as temporary:
        temporary.write_text(to_json(told) + "\n", encoding="utf-8")
    return num_jobs


def _events(run: PageRun) -> Iterator[dict[str, Any]]:
    nodes = nodes_of(run.jobs)
    clock = "virtual time" if run.record.is_virtual else "time"
    yield _name("process_name", 0, f"fedagent, {clock}")
    yield _name("thread_name", _VERSIONS, "versions")
    for row, (node_id, group, jobs) in enumerate(
        zip(nodes.ids, nodes.group, nodes.jobs, strict=True), start=1
    ):
        yield _name("thread_name", row, f"node {node_id} ({group})")
        yield _sorted(row)
        for job in jobs:
            if job.ended_s is None:
                continue
            told = {
                "reason": printable(job.reason),
                "base version": job.version,
                "staleness": job.staleness,
                "local steps": job.local_steps,
                "bytes down": job.bytes_down,
                "bytes up": job.bytes_up,
            }
            yield {
                "name": job.outcome if job.staleness is None else f"staleness {job.staleness}",
                "cat": job.outcome,
                "ph": "X",
                "ts": 1e6 * max(0.0, job.ended_s - job.duration_s),
                "dur": 1e6 * job.duration_s,
                "pid": _PROCESS,
                "tid": row,
                "args": {key: value for key, value in told.items() if value not in ("", None)},
            }
    for version, time_s in zip(run.versions.x["versions"], run.versions.x["clock"], strict=True):
        yield {
            "name": f"version {version:.0f}",
            "ph": "i",
            "s": "t",
            "ts": 1e6 * float(time_s),
            "pid": _PROCESS,
            "tid": _VERSIONS,
        }


def _name(kind: str, row: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": row, "args": {"name": name}}


def _sorted(row: int) -> dict[str, Any]:
    told = {"sort_index": row}
    return {"name": "thread_sort_index", "ph": "M", "pid": _PROCESS, "tid": row, "args": told}
