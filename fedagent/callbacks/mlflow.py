"""A run in MLflow: its configuration, its metrics, its files."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord

from fedagent.callbacks import series
from fedagent.callbacks.background import Background
from fedagent.callbacks.base import Callback
from fedagent.errors import ConfigurationError, imported, require
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd

MAX_PARAMETER_LENGTH = 500
"""What every MLflow server takes."""

logger = logging.getLogger("flwr.fedagent")


class MLflow(Callback):
    """Log a run to MLflow: parameters, metrics whose step is the version, files at the end.

    Metrics travel in a thread of their own, and a server that goes away does not end the run. The
    run in MLflow ends as FINISHED, FAILED (an error, a stall) or KILLED (Ctrl-C); its tag "ended"
    says why. Times of metrics are on the run's clock: virtual in simulation.

    Parameters
    ----------
    experiment : the name of the MLflow experiment; created if there is none.
    tracking_uri : of the store, such as ``http://mlflow:5000`` or ``sqlite:///mlflow.db``; None for
        MLflow's own choice (``MLFLOW_TRACKING_URI``).
    about : what defines the experiment: MLflow's parameters.
    artifacts : files and folders to upload when the run ends; what is not there is left out.
    every : the totals are logged with every n-th version, and at the end; metrics always.

    Raises
    ------
    DataUnavailableError
        If MLflow is not installed.
    ConfigurationError
        If, when the run starts, its store cannot be reached.
    """

    def __init__(
        self,
        experiment: str = "fedagent",
        tracking_uri: str | None = None,
        about: Mapping[str, Any] | None = None,
        artifacts: Sequence[str] = (),
        every: int = 1,
    ) -> None:
        require(every >= 1, f"MLflow: every={every} must be at least 1.")
        self._mlflow = imported("mlflow", "fedagent[mlflow]", "MLflow")
        self._experiment, self._tracking_uri = experiment, tracking_uri
        self._about, self._artifacts, self._every = dict(about or {}), artifacts, every
        self._run_id: str | None = None
        self._began_at_s = 0.0

    def on_start(self, statistics: Statistics) -> None:
        """Create the run and log its parameters."""
        try:
            # A client of its own: what `mlflow.start_run` shares between runs would mix them.
            self._client = client = self._mlflow.MlflowClient(tracking_uri=self._tracking_uri)
            self._run_id = run_id = client.create_run(self._experiment_id()).info.run_id
            # The sender keeps the run it began with: it may still be sending when this one ends.
            self._metrics = Background[Any](
                "MLflow", lambda metrics: client.log_batch(run_id, metrics=metrics)
            )
            client.log_batch(run_id, params=self._parameters())
        except Exception as error:
            where = self._tracking_uri or "the default store"
            raise ConfigurationError(
                f"MLflow: cannot begin a run in {where} ({error}). Check tracking_uri, or run "
                "without MLflow."
            ) from error
        self._began_at_s = series.began_at(statistics)

    def on_version(self, statistics: Statistics) -> None:
        """Log the totals."""
        if statistics.version % self._every == 0:
            self._log(series.of_version(statistics), statistics.version, statistics.now_s)

    def on_evaluation(self, statistics: Statistics, evaluation: Evaluation) -> None:
        """Log the metrics, at the version and time they belong to."""
        self._log(series.of_evaluation(evaluation), evaluation.version, evaluation.now_s)

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Log the last totals and the files, and end the run in MLflow."""
        if self._run_id is None:
            return
        self._log(series.of_version(statistics), statistics.version, statistics.now_s)
        self._metrics.close()
        run_id, self._run_id = self._run_id, None
        try:
            self._client.set_terminated(run_id, _STATUS[end.kind])
            self._client.set_tag(run_id, "ended", str(end)[:MAX_PARAMETER_LENGTH])
            for path in filter(Path.exists, map(Path, self._artifacts)):
                if path.is_dir():
                    self._client.log_artifacts(run_id, str(path), path.name)
                else:
                    self._client.log_artifact(run_id, str(path))
        except Exception as error:  # the run is over, and its files are on this machine
            logger.warning("MLflow: the end of the run could not be logged: %r", error)

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            return str(self._client.create_experiment(self._experiment))
        return str(found.experiment_id)

    def _parameters(self) -> list[Any]:
        parameter = self._mlflow.entities.Param
        return [
            parameter(_name(key), str(value)[:MAX_PARAMETER_LENGTH])
            for key, value in self._about.items()
        ]

    def _log(self, values: Mapping[str, float], version: int, now_s: float) -> None:
        milliseconds = int(1000 * (self._began_at_s + now_s))
        for name, value in values.items():
            self._metrics.put(
                self._mlflow.entities.Metric(_name(name), value, milliseconds, version)
            )


def _name(name: str) -> str:
    """Return `name` with an underscore for every character that MLflow does not take."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)


_STATUS = {"completed": "FINISHED", "stopped": "KILLED", "stalled": "FAILED", "failed": "FAILED"}
