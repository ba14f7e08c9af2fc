"""What a page reads of a run: also of one that goes on, was killed, or is of an earlier version.

Whatever is missing or cannot be read is a sentence in `PageRun.problems`, and the page shows it.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fedagent.callbacks.progress import Progress
from fedagent.errors import ConfigurationError
from fedagent.report.beginning import BEGINNING_FILE
from fedagent.report.jobs import JOBS_FILE, Job, read_job
from fedagent.report.runs import METRICS_FILE, SUMMARY_FILE, RunRecord
from fedagent.statistics import Evaluation
from fedagent.stopping import Baseline, Metric, RunEnd

AXES = ("updates", "versions", "clock", "wall", "bytes")
"""What a metric is drawn against."""
NO_END = RunEnd("stopped", f"no {SUMMARY_FILE}: it is going on, or was killed")

Floats = npt.NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class Points:
    """A value along a run. Shape legend: N points, in order of time.

    Attributes
    ----------
    x : (N,) of every axis: updates, versions, clock and wall in seconds, bytes in both directions.
    y : (N,) the value; NaN where it was not finite.
    """

    x: Mapping[str, Floats]
    y: Floats

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class PageRun:
    """A run as its folder tells it.

    Attributes
    ----------
    record : as `compare` takes it; `NO_END` is the end of a run without a summary.
    about, beginning, summary : what the files say; empty where they say nothing.
    curve : the metric.
    versions : when versions came out; the value is how many updates each holds.
    parts : the newest evaluation's metrics that begin with the metric's name and a "-".
    jobs : those that are told, in the order in which they ended; empty unless asked for.
    problems : what could not be read, a sentence each.
    """

    record: RunRecord
    beginning: Mapping[str, Any]
    summary: Mapping[str, Any]
    curve: Points
    versions: Points
    parts: Mapping[str, float]
    jobs: Sequence[Job] = ()
    problems: Sequence[str] = field(default=())

    @property
    def is_over(self) -> bool:
        """Whether it has a summary."""
        return bool(self.summary)

    def says(self, key: str) -> Any:
        """Return what the summary says, or else run.json; None if neither does."""
        return self.summary.get(key, self.beginning.get(key))


def read(directory: Path, with_jobs: bool = False) -> PageRun:
    """Return the run in a folder.

    Raises
    ------
    ConfigurationError
        If the folder does not say what was run: neither run.json nor summary.json can be read, or
        what they say cannot be.
    """
    problems: list[str] = []
    beginning = _object(directory / BEGINNING_FILE, problems)
    summary = _object(directory / SUMMARY_FILE, problems)
    said = {**beginning, **summary}
    try:
        metric, target = Metric(**said["metric"]), said["target"]
        about = dict(said["about"])
        told = said.get("baseline")
        baseline = Baseline(str(told["name"]), float(told["value"])) if told else None
        end = RunEnd(**summary["end"]) if summary else NO_END
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{directory} does not say what was run: {BEGINNING_FILE} and {SUMMARY_FILE} are "
            f"missing or broken ({error!r}). Give the output folder of a run."
        ) from error
    lines = list(_lines(directory / METRICS_FILE, json.loads, problems))
    versions = [line for line in lines if line.get("event") == "version"]
    values = [
        line
        for line in lines
        if line.get("event") == "evaluation"
        and line.get("source") == metric.source
        and metric.name in line.get("metrics", {})
    ]
    newest = versions[-1] if versions else {}
    is_virtual = bool(said.get("is_virtual", said.get("virtual_time_s") is not None))
    counted = {**newest, **summary}
    curve = _curve(values, metric.name)
    record = RunRecord(
        directory=directory,
        about=about,
        end=end,
        metric=metric,
        baseline=baseline,
        target=target,
        is_virtual=is_virtual,
        final_value=_finite(curve.y[-1]) if len(curve) else None,
        time_to_target_s=summary.get("time_to_target_s"),
        updates_to_target=summary.get("updates_to_target"),
        num_updates=counted.get("num_updates", 0),
        num_bytes=counted.get("bytes_down", 0) + counted.get("bytes_up", 0),
        staleness_mean=counted.get("staleness_mean", 0.0),
        staleness_max=counted.get("staleness_max", 0),
        utilisation=summary.get("utilisation", math.nan),
        curve=tuple(zip(curve.x["clock"].tolist(), curve.y.tolist(), strict=True)),
    )
    if not summary:
        reached = _reached(record, values)
        record = replace(
            record,
            time_to_target_s=reached.now_s if reached else None,
            updates_to_target=reached.num_updates if reached else None,
        )
    jobs = tuple(_lines(directory / JOBS_FILE, read_job, problems)) if with_jobs else ()
    return PageRun(
        record=record,
        beginning=beginning,
        summary=summary,
        curve=curve,
        versions=_versions(versions),
        parts=_parts(values, metric.name),
        jobs=jobs,
        problems=tuple(problems),
    )


def _object(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(said, dict):
            raise TypeError("it is no JSON object")
    except FileNotFoundError:
        problems.append(f"{path.name} is missing.")
    except (OSError, ValueError, TypeError) as error:
        problems.append(f"{path.name} cannot be read ({error}).")
    else:
        return said
    return {}


def _lines(path: Path, read_line: Any, problems: list[str]) -> Iterator[Any]:
    """Yield what the lines of a file say; those that say nothing are counted in one problem."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        problems.append(f"{path.name} is missing.")
        return
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error}).")
        return
    broken: list[int] = []
    for number, line in enumerate(lines, start=1):
        try:
            read = read_line(line)
            if read_line is json.loads and not isinstance(read, dict):
                raise TypeError("no JSON object")
        except (ValueError, TypeError):
            broken.append(number)
        else:
            yield read
    if broken:
        what = "1 line" if len(broken) == 1 else f"{len(broken):,} lines"
        problems.append(f"{path.name} has {what} that cannot be read; the first is {broken[0]:,}.")


def _curve(lines: Sequence[Mapping[str, Any]], name: str) -> Points:
    y = np.array([_number(line["metrics"][name]) for line in lines], dtype=np.float64)
    x = _axes(lines)
    order = np.argsort(x["clock"], kind="stable")  # federated evaluation may end out of order
    return Points({axis: values[order] for axis, values in x.items()}, y[order])


def _versions(lines: Sequence[Mapping[str, Any]]) -> Points:
    x = _axes(lines)
    return Points(x, np.diff(x["updates"], prepend=0.0))


def _axes(lines: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    keys = {"updates": "num_updates", "versions": "version", "clock": "time_s"}
    keys |= {"wall": "wall_time_s"}
    x = {
        axis: np.array([_number(line.get(key)) for line in lines], dtype=np.float64)
        for axis, key in keys.items()
    }
    down_and_up = ([_number(line.get(f"bytes_{way}")) for line in lines] for way in ("down", "up"))
    return x | {"bytes": np.sum(np.array(list(down_and_up), dtype=np.float64), axis=0)}


def _parts(lines: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    metrics = lines[-1]["metrics"] if lines else {}
    found = {key: _number(value) for key, value in metrics.items() if key.startswith(f"{name}-")}
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _reached(record: RunRecord, lines: Iterable[Mapping[str, Any]]) -> Evaluation | None:
    """Return where a run without a summary has reached its target."""
    progress = Progress(record.metric, record.target)
    for line in lines:
        told = line["version"], line["time_s"], line["num_updates"], line["source"]
        value = _number(line["metrics"][record.metric.name])
        progress.take(Evaluation(*told, {record.metric.name: value}))
    return progress.reached


def _number(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
