"""What a run leaves behind, so that it can be compared with others and done again."""

import json
import logging
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from safetensors.numpy import save_file

from fedagent.callbacks.base import Callback
from fedagent.errors import DataUnavailableError
from fedagent.formatting import to_json
from fedagent.report.figure import plot_runs
from fedagent.report.files import replacing
from fedagent.report.runs import METRICS_FILE, SUMMARY_FILE, read_run
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import Metric, RunEnd
from fedagent.wire.records import digest

logger = logging.getLogger("flwr.fedagent")

MODEL_FILE = "model.safetensors"
PLOT_FILE = "plots/metric.png"


class Recorder(Callback):
    """Write metrics.jsonl as the run goes, and summary.json, the model and a plot at its end.

    Without matplotlib there is no plot, and a line in the log says so.

    Parameters
    ----------
    directory : where the files go; created when the run starts.
    metric : the metric the summary and the plot are about.
    target : the value of `metric` whose time is wanted, or None.
    about : what defines the experiment, such as strategy, fleet, partition and seed. Runs that
        differ in "seed" only are one line of a comparison, so keep dates and paths out of it.
    """

    def __init__(
        self, directory: Path, metric: Metric, target: float | None, about: Mapping[str, Any]
    ) -> None:
        self._directory = directory
        self._metric = metric
        self._target = target
        self._about = dict(about)

    def on_start(self, statistics: Statistics) -> None:
        """Begin metrics.jsonl; a resumed run keeps the lines up to where it resumes."""
        path = self._directory / METRICS_FILE
        kept = _lines_until(path, statistics.version) if statistics.version else []
        with replacing(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def on_version(self, statistics: Statistics) -> None:
        """Add a line for the published version."""
        self._write(
            statistics,
            {
                "event": "version",
                "version": statistics.version,
                **_time(statistics, statistics.now_s),
                "num_updates": statistics.num_updates,
                **_traffic(statistics),
                "staleness_mean": statistics.staleness_mean,
                "staleness_max": statistics.staleness_max,
            },
        )

    def on_evaluation(self, statistics: Statistics, evaluation: Evaluation) -> None:
        """Add a line for the metrics that came in."""
        self._write(
            statistics,
            {
                "event": "evaluation",
                "source": evaluation.source,
                "version": evaluation.version,
                **_time(statistics, evaluation.now_s),
                "num_updates": evaluation.num_updates,
                **_traffic(statistics),
                "metrics": evaluation.metrics,
            },
        )

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Write the model, the summary and the plot."""
        model = arrays()
        with replacing(self._directory / MODEL_FILE) as temporary:
            # safetensors writes memory as it lies, so a Fortran-ordered array must be turned;
            # the format tells transformers and torch users that the names are torch names.
            tensors = {name: np.asarray(array.numpy(), order="C") for name, array in model.items()}
            save_file(tensors, temporary, metadata={"format": "pt"})
        with replacing(self._directory / SUMMARY_FILE) as temporary:
            summary = self._summary(statistics, end) | {"params_sha256": digest(model)}
            temporary.write_text(to_json(summary, indent=2) + "\n", encoding="utf-8")
        # The plot comes last: whatever happens to it, the run is on the disk.
        run = read_run(self._directory)
        if run.curve:
            try:
                plot_runs([run], self._directory / PLOT_FILE)
            except DataUnavailableError as error:
                logger.warning("No %s: %s", PLOT_FILE, error)

    def _write(self, statistics: Statistics, line: Mapping[str, Any]) -> None:
        # Opened for each line: nothing stays in a buffer when the run is killed.
        with (self._directory / METRICS_FILE).open("a", encoding="utf-8") as stream:
            stream.write(to_json(line) + "\n")

    def _summary(self, statistics: Statistics, end: RunEnd) -> dict[str, Any]:
        history = self._metric.history(statistics)
        best = max if self._metric.mode == "max" else min
        reached = self._first_at_target(statistics)
        return {
            "about": self._about,
            "end": asdict(end),
            "metric": {
                "name": self._metric.name,
                "mode": self._metric.mode,
                "source": self._metric.source,
            },
            "final_value": history[-1] if history else None,
            "best_value": best(filter(math.isfinite, history), default=None),
            "target": self._target,
            "time_to_target_s": reached.now_s if reached else None,
            "updates_to_target": reached.num_updates if reached else None,
            "num_versions": statistics.version,
            "num_updates": statistics.num_updates,
            **_time(statistics, statistics.now_s),
            "num_dispatches": statistics.num_dispatches,
            "dispatches": statistics.by_outcome(),
            "in_flight": statistics.in_flight,
            "evaluations": Statistics(outcomes=statistics.evaluation_outcomes).by_outcome(),
            "buffered": statistics.buffered,
            "lost": dict(sorted(statistics.lost.items())),
            "unsolicited": dict(sorted(statistics.unsolicited.items())),
            **_traffic(statistics),
            "staleness_mean": statistics.staleness_mean,
            "staleness_max": statistics.staleness_max,
            "concurrency": statistics.concurrency,
            "utilisation": statistics.utilisation,
            "wasted_s": statistics.wasted_s,
            "software": {
                "python": platform.python_version(),
                **{name: _installed(name) for name in ("flwr", "torch", "fedagent")},
            },
            "machine": {"platform": platform.platform(), "cpu_count": os.cpu_count()},
        }

    def _first_at_target(self, statistics: Statistics) -> Evaluation | None:
        for evaluation in statistics.evaluations:
            if self._is_reached(evaluation):
                return evaluation
        return None

    def _is_reached(self, evaluation: Evaluation) -> bool:
        value = self._metric.value(evaluation)
        if self._target is None or value is None or math.isnan(value):
            return False
        return not self._metric.is_better(self._target, value)


def _time(statistics: Statistics, now_s: float) -> dict[str, float | None]:
    return {
        "virtual_time_s": now_s if statistics.is_virtual else None,
        "time_s": now_s,
        "wall_time_s": statistics.wall_s,
    }


def _traffic(statistics: Statistics) -> dict[str, int]:
    return {
        "bytes_down": statistics.bytes_down,
        "bytes_up": statistics.bytes_up,
        "bytes_between_regions": statistics.bytes_between_regions,
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return None


def _lines_until(path: Path, last_version: int) -> list[str]:
    """Return the lines up to `last_version`: what the lost part of a run wrote is done again."""
    kept: list[str] = []
    if not path.exists():
        return kept
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            belongs = json.loads(line)["version"] <= last_version
        except ValueError:  # cut off when the run was killed
            belongs = False
        if belongs:
            kept.append(line)
    return kept
