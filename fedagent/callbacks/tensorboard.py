"""A run as curves in TensorBoard."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord

from fedagent.callbacks import series
from fedagent.callbacks.base import Callback
from fedagent.errors import imported, require
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd


class TensorBoard(Callback):
    """Write event files: metrics as ``server/accuracy``, totals such as ``traffic/bytes_up``.

    TensorBoard's horizontal axis "step" is the version, and "relative" the run's clock: virtual
    time in simulation.

    Parameters
    ----------
    directory : where the event files go; ``tensorboard --logdir`` on it or a folder above.
    every : the totals are written with every n-th version, and at the end; metrics always.

    Raises
    ------
    DataUnavailableError
        If tensorboard is not installed.
    """

    def __init__(self, directory: str | Path, every: int = 1) -> None:
        require(every >= 1, f"TensorBoard: every={every} must be at least 1.")
        self._open = imported(
            "torch.utils.tensorboard", "fedagent[tensorboard]", "TensorBoard"
        ).SummaryWriter
        self._directory, self._every = str(directory), every
        self._writer: Any = None
        self._began_at_s = 0.0

    def on_start(self, statistics: Statistics) -> None:
        """Open the event file; in a resumed run, hide what the lost part wrote."""
        self._began_at_s = series.began_at(statistics)
        purge_step = statistics.version + 1 if statistics.version else None
        self._writer = self._open(self._directory, purge_step=purge_step, flush_secs=10)

    def on_version(self, statistics: Statistics) -> None:
        """Add the totals."""
        if statistics.version % self._every == 0:
            self._add(series.of_version(statistics), statistics.version, statistics.now_s)

    def on_evaluation(self, statistics: Statistics, evaluation: Evaluation) -> None:
        """Add the metrics, at the version and time they belong to."""
        self._add(series.of_evaluation(evaluation), evaluation.version, evaluation.now_s)

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Add the last totals, say why the run ended, and close the file."""
        if self._writer is None:
            return
        self._add(series.of_version(statistics), statistics.version, statistics.now_s)
        self._writer.add_text("run/ended", str(end), statistics.version)
        self._writer.close()
        self._writer = None

    def _add(self, values: Mapping[str, float], version: int, now_s: float) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, version, walltime=self._began_at_s + now_s)
