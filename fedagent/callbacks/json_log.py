"""A run as log lines for machines: one JSON object per event."""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from flwr.app import ArrayRecord

from fedagent.callbacks.base import Callback, Settlement
from fedagent.errors import one_of
from fedagent.formatting import to_json
from fedagent.statistics import Evaluation, Statistics
from fedagent.stopping import RunEnd
from fedagent.update import Outcome

LEVELS = ("debug", "info", "warning", "error")

flower_logger = logging.getLogger("flwr")
"""Flower's, and above fedagent's."""


class JsonLog(Callback):
    """Write what happens to standard error, for journald, Loki and their like.

    Every line has "time" (UTC), "level" and "event": start, version, settled, evaluation, end, or
    log for a line that Flower or fedagent logs in words; while the run lasts those no longer appear
    as plain text. An applied update is "debug", any other outcome but the end of the run "warning".

    Parameters
    ----------
    level : debug, info, warning or error: what is below it is left out.
    stream : where to write; None for standard error.

    Raises
    ------
    ConfigurationError
        If there is no such level.
    """

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        one_of("level", level, LEVELS)
        self._handler = _Lines(stream)
        self._handler.setLevel(level.upper())
        self._displaced: list[logging.Handler] = []

    def on_start(self, statistics: Statistics) -> None:
        """Say so, and take the place of the plain log lines."""
        self._displaced = [h for h in flower_logger.handlers if _writes_to_a_terminal(h)]
        for handler in self._displaced:
            flower_logger.removeHandler(handler)
        flower_logger.addHandler(self._handler)
        self._write("info", "start", version=statistics.version)

    def on_settled(self, statistics: Statistics, settlement: Settlement) -> None:
        """Say how a dispatch ended."""
        level = "warning"
        if settlement.outcome is Outcome.APPLIED:
            level = "debug"
        elif settlement.reason == "run-ended":
            level = "info"
        dispatch = settlement.dispatch
        self._write(
            level,
            "settled",
            node_id=str(dispatch.node_id),  # many readers take no integers of 64 bits
            kind=dispatch.kind,
            outcome=settlement.outcome,
            reason=settlement.reason,
            detail=settlement.detail,
            base_version=dispatch.version,
            staleness=settlement.staleness,
            duration_s=settlement.duration_s,
        )

    def on_version(self, statistics: Statistics) -> None:
        """Say that there is a new version."""
        self._write("info", "version", **_totals(statistics))

    def on_evaluation(self, statistics: Statistics, evaluation: Evaluation) -> None:
        """Say how good a version is."""
        self._write(
            "info",
            "evaluation",
            source=evaluation.source,
            version=evaluation.version,
            metrics=evaluation.numbers,
        )

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Say why it ended and how it went, and put the plain log lines back."""
        self._write(
            "error" if end.has_failed else "info",
            "end",
            kind=end.kind,
            detail=end.detail,
            **_totals(statistics),
            dispatches=statistics.by_outcome(),
        )
        flower_logger.removeHandler(self._handler)
        for handler in self._displaced:
            flower_logger.addHandler(handler)
        self._displaced = []

    def _write(self, level: str, event: str, **fields: Any) -> None:
        number = logging.getLevelName(level.upper())
        if number >= self._handler.level:
            record = logging.LogRecord("fedagent", number, "", 0, event, None, None)
            record.fields = {"event": event, **fields}
            self._handler.handle(record)


class _Lines(logging.StreamHandler[Any]):
    """A handler whose lines are JSON. One that cannot be written does not end the run."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._is_standard_error = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_standard_error:  # which a live display may have put itself before
            self.setStream(sys.stderr)
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        if fields is None:
            fields = {"event": "log", "logger": record.name, "message": record.getMessage()}
            if record.exc_info:
                fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        when = datetime.fromtimestamp(record.created, UTC)
        return to_json({"time": when.isoformat(), "level": record.levelname.lower(), **fields})


def _writes_to_a_terminal(handler: logging.Handler) -> bool:
    is_stream = isinstance(handler, logging.StreamHandler)
    return is_stream and not isinstance(handler, logging.FileHandler | _Lines)


def _totals(statistics: Statistics) -> dict[str, Any]:
    return {
        "version": statistics.version,
        "num_updates": statistics.num_updates,
        "time_s": statistics.now_s,
        "wall_time_s": statistics.wall_s,
        "in_flight": statistics.in_flight,
        "at_work_max": statistics.at_work_max,
        "num_nodes": statistics.num_nodes,
        "num_idle": statistics.num_idle,
        "staleness_mean": statistics.staleness_mean,
        "bytes_down": statistics.bytes_down,
        "bytes_up": statistics.bytes_up,
    }
