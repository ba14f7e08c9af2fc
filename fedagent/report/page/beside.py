"""The live view beside a run: `fedagent watch` in a process of its own, for as long as it lasts."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flwr.app import ArrayRecord
from rich.console import Console

from fedagent.callbacks.base import Callback
from fedagent.errors import installed
from fedagent.report.page.live import ADDRESS, listen
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd


class WatchedRun(Callback):
    """Serve the live page of a run until it ends, and say where; it comes before a display.

    Parameters
    ----------
    directory : the run's folder.
    port : 0 to 65535; 0 takes one that is free.

    Raises
    ------
    DataUnavailableError
        If Bokeh is not installed.
    ConfigurationError
        If, when the run starts, the port cannot be had.
    """

    def __init__(self, directory: Path, port: int = 0) -> None:
        installed("bokeh", "fedagent[plots]", "live=true", "set live=false")
        self._directory, self._port = directory, port
        self._process: subprocess.Popen[bytes] | None = None

    def on_start(self, statistics: Statistics) -> None:
        """Begin to serve."""
        with listen(self._port) as listening:
            fd, port = listening.fileno(), listening.getsockname()[1]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fedagent", "watch", str(self._directory), f"--socket={fd}"],
                pass_fds=[fd],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
        console = Console(soft_wrap=True, highlight=False, markup=False)
        console.print(f"Live: http://{ADDRESS}:{port}/")

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Let the server end; nobody waits for it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
