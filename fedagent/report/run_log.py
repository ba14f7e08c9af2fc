"""What a run logs, in its folder: bounded, so that nobody has to look after it."""

import logging
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

from flwr.app import ArrayRecord

from fedagent.callbacks.base import Callback
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd

LOG_FILE = "log.txt"
MOST_BYTES = 1_000_000
"""Of the file; what was before is in log.txt.1, and what was before that is gone."""


class RunLog(Callback):
    """Write what Flower and fedagent log while a run lasts into log.txt.

    The file comes with the first line; a run without any has none. A resumed run goes on in it.

    Parameters
    ----------
    directory : the run's folder, which exists when the first line comes.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG_FILE
        self._handler: logging.Handler | None = None

    def on_start(self, statistics: Statistics) -> None:
        """Begin to listen."""
        self._handler = RotatingFileHandler(
            self._path, maxBytes=MOST_BYTES, backupCount=1, encoding="utf-8", delay=True
        )
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("flwr").addHandler(self._handler)

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Stop listening."""
        if self._handler is not None:
            logging.getLogger("flwr").removeHandler(self._handler)
            self._handler.close()
            self._handler = None
