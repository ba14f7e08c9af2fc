"""What a run leaves behind, so that it can be compared with others and done again."""

import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from safetensors.numpy import save_file

from fedagent.callbacks.base import Callback, Settlement
from fedagent.callbacks.progress import Progress
from fedagent.errors import DataUnavailableError, OutputError
from fedagent.formatting import to_json
from fedagent.report.at_work import AtWork
from fedagent.report.beginning import software, write_beginning
from fedagent.report.figure import plot_runs
from fedagent.report.files import append_line, cut, flushed, replacing
from fedagent.report.folder import begin
from fedagent.report.jobs import JobLog
from fedagent.report.runs import METRICS_FILE, SUMMARY_FILE, read_run
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import Baseline, Metric, RunEnd
from fedagent.update import Dispatch
from fedagent.wire.records import digest

logger = logging.getLogger("flwr.fedagent")

MODEL_FILE = "model.safetensors"
PLOT_FILE = "plots/metric.png"
PAGE_FILE = "page.html"


class Recorder(Callback):
    """Write run.json, then metrics.jsonl and jobs.jsonl as the run goes, at its end all else.

    Without matplotlib there is no plot, and a line in the log says so.

    Parameters
    ----------
    directory : where the files go; created when the run starts.
    metric : the metric the summary and the plot are about.
    target : the value of `metric` whose time is wanted, or None.
    about : what defines the experiment, such as strategy, fleet, partition and seed. Runs that
        differ in "seed" only are one line of a comparison, so keep dates and paths out of it.
    overwrite : whether a run that `directory` holds may be lost. A run that is resumed goes on in
        its folder anyway, after the lines that it had written at its checkpoint.
    baseline : what there is to beat on the same data, or None.
    begun_with : what else run.json tells, such as the "overrides" and "max_updates"; plain values.

    Raises
    ------
    ConfigurationError
        If, when the run starts, `directory` holds another run or cannot be written to.
    OutputError
        If a file cannot be written later on; whatever else can be is.
    """

    def __init__(
        self,
        directory: Path,
        metric: Metric,
        target: float | None,
        about: Mapping[str, Any],
        overwrite: bool = False,
        baseline: Baseline | None = None,
        begun_with: Mapping[str, Any] | None = None,
    ) -> None:
        self._directory = directory
        self._jobs = JobLog(directory)
        self._at_work = AtWork(directory)
        self._overwrite = overwrite
        self._num_bytes: int | None = None  # of metrics.jsonl, where a run that is resumed goes on
        self._has_begun = False
        self._progress = Progress(metric, target)
        self._about = dict(about)
        self._baseline = baseline
        self._begun_with = dict(begun_with or {})

    def on_start(self, statistics: Statistics) -> None:
        """Begin metrics.jsonl; a resumed run keeps the lines up to where it resumes."""
        goes_on = self._num_bytes is not None
        begin(self._directory, overwrite=self._overwrite or goes_on)
        cut(self._directory / METRICS_FILE, self._num_bytes or 0)
        plots = (self._directory / PLOT_FILE).parent
        earlier = [self._directory / file for file in (SUMMARY_FILE, MODEL_FILE, PAGE_FILE)]
        for file in (*earlier, *plots.glob("*.png"), *plots.glob("*.txt")):
            file.unlink(missing_ok=True)
        self._jobs.begin(goes_on)
        self._at_work.clear()
        goal = self._progress.metric, self._progress.target, self._baseline
        write_beginning(self._directory, statistics, *goal, self._about, self._begun_with)
        self._has_begun = True

    def state_dict(self) -> dict[str, Any]:
        """Return how much of the files is written, and what the summary will say."""
        num_bytes = flushed(self._directory / METRICS_FILE)
        return {
            "num_bytes": num_bytes,
            "jobs": self._jobs.state_dict(),
            "at_work": self._at_work.state_dict(),
            "progress": self._progress.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the same files."""
        self._num_bytes = int(state["num_bytes"])
        self._jobs.load_state_dict(state["jobs"])
        self._at_work.load_state_dict(state["at_work"])
        self._progress.load_state_dict(state["progress"])

    def on_dispatch(self, statistics: Statistics, dispatch: Dispatch) -> None:
        """Say what the node is doing."""
        self._at_work.begin(dispatch)
        self._at_work.write(statistics.now_s)

    def on_settled(self, statistics: Statistics, settlement: Settlement) -> None:
        """Note what a job took; its line is written with the next version."""
        self._jobs.add(settlement, statistics.now_s)
        self._at_work.end(settlement.dispatch)
        self._at_work.write(statistics.now_s)

    def on_version(self, statistics: Statistics) -> None:
        """Add a line for the published version, and those of the jobs before it."""
        self._jobs.flush()
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
        self._progress.take(evaluation)
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
        """Write the model, the summary and the plot; nothing of a run that never began here."""
        if not self._has_begun:
            return
        self._at_work.clear()
        model = arrays()
        errors: list[OutputError] = []
        summary = self._summary(statistics, end) | {"params_sha256": digest(model)}
        for write in (
            partial(self._write_model, model),
            partial(self._write_summary, summary),
            self._jobs.flush,
        ):
            try:
                write()
            except OutputError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        # The plot comes last: whatever happens to it, the run is on the disk.
        run = read_run(self._directory)
        if run.curve:
            try:
                plot_runs([run], self._directory / PLOT_FILE)
            except DataUnavailableError as error:
                logger.warning("No %s: %s", PLOT_FILE, error)

    def _write(self, statistics: Statistics, line: Mapping[str, Any]) -> None:
        append_line(self._directory / METRICS_FILE, to_json(line))

    def _write_model(self, model: ArrayRecord) -> None:
        try:
            _save(model, self._directory / MODEL_FILE)
        except OutputError as error:  # it may be all that is left of days
            rescued = Path(tempfile.gettempdir(), f"fedagent-{time.time_ns()}-{MODEL_FILE}")
            try:
                _save(model, rescued)
            except OutputError:
                raise error from None
            raise OutputError(f"{error} The model is in {rescued}.") from None

    def _write_summary(self, summary: Mapping[str, Any]) -> None:
        with replacing(self._directory / SUMMARY_FILE) as temporary:
            temporary.write_text(to_json(summary, indent=2) + "\n", encoding="utf-8")

    def _summary(self, statistics: Statistics, end: RunEnd) -> dict[str, Any]:
        progress, metric = self._progress, self._progress.metric
        return {
            "about": self._about,
            "end": asdict(end),
            "metric": {"name": metric.name, "mode": metric.mode, "source": metric.source},
            "final_value": progress.last,
            "best_value": progress.best,
            "baseline": asdict(self._baseline) if self._baseline else None,
            "target": progress.target,
            "time_to_target_s": progress.reached.now_s if progress.reached else None,
            "updates_to_target": progress.reached.num_updates if progress.reached else None,
            "num_versions": statistics.version,
            "num_updates": statistics.num_updates,
            **_time(statistics, statistics.now_s),
            "num_dispatches": statistics.num_dispatches,
            "dispatches": statistics.by_outcome(),
            "in_flight": statistics.in_flight,
            "evaluations": Statistics(outcomes=statistics.evaluation_outcomes).by_outcome(),
            "unmasking": Statistics(outcomes=statistics.unmasking_outcomes).by_outcome(),
            "buffered": statistics.buffered,
            "lost": dict(sorted(statistics.lost.items())),
            "most_influential_nodes": statistics.most_influential(),
            "fruitless_nodes": statistics.fruitless_nodes(),
            "delta_like_nodes": statistics.delta_like,
            "unsolicited": dict(sorted(statistics.unsolicited.items())),
            **_traffic(statistics),
            "staleness_mean": statistics.staleness_mean,
            "staleness_max": statistics.staleness_max,
            "concurrency": statistics.concurrency,
            "at_work_max": statistics.at_work_max,
            "utilisation": statistics.utilisation,
            "slots_s": statistics.slots_s,
            "busy_s": statistics.busy_s,
            "applied_s": statistics.applied_s,
            "useful_s": statistics.useful_s,
            "wasted_s": statistics.wasted_s,
            "software": software(),
            "machine": {"platform": platform.platform(), "cpu_count": os.cpu_count()},
        }


def _save(model: ArrayRecord, path: Path) -> None:
    with replacing(path) as temporary:
        # safetensors writes memory as it lies, so a Fortran-ordered array must be turned;
        # the format tells transformers and torch users that the names are torch names.
        tensors = {name: np.asarray(array.numpy(), order="C") for name, array in model.items()}
        save_file(tensors, temporary, metadata={"format": "pt"})


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
