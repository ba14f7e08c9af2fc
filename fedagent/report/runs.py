"""Read what runs have left behind."""

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedagent.errors import ConfigurationError
from fedagent.stopping import Baseline, Metric, RunEnd

METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One finished run, read back from its folder.

    Attributes
    ----------
    directory : its folder.
    about : what defines the experiment, the seed included.
    end : why and how it ended; only a completed run is a result.
    metric : the metric that was followed.
    baseline : what there was to beat on the same data; None where nobody asked.
    target : the value it should reach, or None.
    is_virtual : whether times are simulated.
    final_value : the metric's last value; None when it was never measured or not finite.
    time_to_target_s, updates_to_target : when the target was reached; None if it never was.
    num_updates : client updates that the rule received.
    num_bytes : model bytes sent in both directions.
    staleness_mean, staleness_max : over received updates, in versions.
    utilisation : share of the slots' time in which a node was at work, 0 to 1.
    curve : (time in seconds, metric) in order of time; NaN where the metric was not finite.
    """

    directory: Path
    about: Mapping[str, Any]
    end: RunEnd
    metric: Metric
    baseline: Baseline | None
    target: float | None
    is_virtual: bool
    final_value: float | None
    time_to_target_s: float | None
    updates_to_target: float | None
    num_updates: float
    num_bytes: float
    staleness_mean: float
    staleness_max: float
    utilisation: float
    curve: tuple[tuple[float, float], ...]


def find_runs(paths: Iterable[Path]) -> list[RunRecord]:
    """Return every finished run in `paths` and below, in the order given, then by folder.

    A run whose files cannot be read, or that was never finished, is skipped with a warning that
    names it.

    Raises
    ------
    ConfigurationError
        If a path does not exist or holds no run that can be read.
    """
    found: dict[Path, RunRecord] = {}
    for path in paths:
        num_runs = 0
        for directory in _run_directories(path):
            if run := found.get(directory) or _read_or_warn(directory):
                found[directory] = run
                num_runs += 1
        if not num_runs:
            what = "holds no finished run" if path.is_dir() else "is not a folder"
            raise ConfigurationError(
                f"{path} {what}: no readable {SUMMARY_FILE} in it or below. "
                "Give the output folder of `fedagent run`, or one above several of them."
            )
    return list(found.values())


def read_run(directory: Path) -> RunRecord:
    """Return the run in `directory`.

    Raises
    ------
    ConfigurationError
        If a file is missing, is not JSON, or lacks a value; the message names the file.
    """
    with _naming(directory / SUMMARY_FILE) as text:
        summary = json.loads(text)
        metric = Metric(**summary["metric"])
        run = RunRecord(
            directory=directory,
            about=dict(summary["about"]),
            end=RunEnd(**summary["end"]),
            metric=metric,
            baseline=_baseline(summary),
            target=_maybe(summary, "target"),
            is_virtual=summary["virtual_time_s"] is not None,
            final_value=_maybe(summary, "final_value"),
            time_to_target_s=_maybe(summary, "time_to_target_s"),
            updates_to_target=_maybe(summary, "updates_to_target"),
            num_updates=_number(summary, "num_updates"),
            num_bytes=_number(summary, "bytes_down") + _number(summary, "bytes_up"),
            staleness_mean=_number(summary, "staleness_mean"),
            staleness_max=_number(summary, "staleness_max"),
            utilisation=_number(summary, "utilisation"),
            curve=(),
        )
    return replace(run, curve=_curve(directory / METRICS_FILE, metric))


def _run_directories(path: Path) -> list[Path]:
    """Return the folders that hold a run, "2" before "10"."""
    files = [file for name in (SUMMARY_FILE, METRICS_FILE) for file in path.rglob(name)]
    return sorted({file.parent.resolve() for file in files}, key=natural)


def natural(path: Path) -> list[int | str]:
    """Return a key that sorts "2" before "10"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _read_or_warn(directory: Path) -> RunRecord | None:
    if not (directory / SUMMARY_FILE).exists():
        logger.warning(
            "Skipped %s: the run has no %s, so it did not finish.", directory, SUMMARY_FILE
        )
        return None
    try:
        return read_run(directory)
    except ConfigurationError as error:
        logger.warning("Skipped %s: %s", directory, error)
        return None


@contextmanager
def _naming(path: Path) -> Iterator[str]:
    """Yield the text of `path`; whatever is wrong with it is said together with its name."""
    try:
        yield path.read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error!r}.") from error


def _curve(path: Path, metric: Metric) -> tuple[tuple[float, float], ...]:
    points = []
    with _naming(path) as text:
        for line in map(json.loads, text.splitlines()):
            if line["event"] != "evaluation" or line["source"] != metric.source:
                continue
            if metric.name in line["metrics"]:
                value = line["metrics"][metric.name]
                points.append((float(line["time_s"]), math.nan if value is None else float(value)))
    # Federated evaluation may end out of order; the sort is stable within one moment.
    return tuple(sorted(points, key=lambda point: point[0]))


def _number(summary: Mapping[str, Any], key: str) -> float:
    value = summary[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} is {value!r}, not a number")
    return value


def _baseline(summary: Mapping[str, Any]) -> Baseline | None:
    told = summary.get("baseline")  # which earlier versions did not write
    return told and Baseline(str(told["name"]), _number(told, "value"))


def _maybe(summary: Mapping[str, Any], key: str) -> float | None:
    return None if summary[key] is None else _number(summary, key)
