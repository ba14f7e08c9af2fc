"""Writing pages: of the runs in some folders, or of the one that has just ended."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import ArrayRecord

from fedagent.callbacks.base import Callback
from fedagent.errors import ConfigurationError, DataUnavailableError, FedagentError
from fedagent.report.beginning import BEGINNING_FILE
from fedagent.report.files import replacing
from fedagent.report.page.data import PageRun, read
from fedagent.report.page.document import html_of, page_of
from fedagent.report.recorder import PAGE_FILE
from fedagent.report.runs import SUMMARY_FILE, natural
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd

logger = logging.getLogger("flwr.fedagent")


def write_page(paths: Iterable[Path], target: Path) -> int:
    """Write one page of all runs in folders and below; return how many runs it shows.

    A run that is going on or was killed is shown as far as it is written.

    Raises
    ------
    ConfigurationError
        If a folder holds no run that can be read.
    DataUnavailableError
        If Bokeh is not installed.
    OutputError
        If the file cannot be written.
    """
    runs = runs_in(paths)
    text = html_of(page_of(runs))
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return len(runs)


def runs_in(paths: Iterable[Path]) -> list[PageRun]:
    """Return all runs in folders and below; the jobs are read where there is one run only.

    Raises
    ------
    ConfigurationError
        If a folder holds no run that can be read.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        files = [file for name in (SUMMARY_FILE, BEGINNING_FILE) for file in path.rglob(name)]
        own = sorted({file.parent.resolve() for file in files}, key=natural)
        folders |= dict.fromkeys(own)
        if not own:
            what = "holds no run" if path.is_dir() else "is not a folder"
            raise ConfigurationError(
                f"{path} {what}: no {SUMMARY_FILE} or {BEGINNING_FILE} in it or below. "
                "Give the output folder of `fedagent run`, or one above several of them."
            )
    if len(folders) == 1:
        return [read(folder, with_jobs=True) for folder in folders]
    found = []
    for folder in folders:
        try:
            found.append(read(folder))
        except ConfigurationError as error:
            logger.warning("Skipped %s: %s", folder, error)
    if not found:
        raise ConfigurationError(f"None of {len(folders)} runs can be read; see the log.")
    return found


class PageAtEnd(Callback):
    """Write page.html into the folder of a run when it ends; its last callback.

    Whatever goes wrong is one line in the log: it comes after the run's own files, and costs none.

    Parameters
    ----------
    directory : the run's folder, where a `Recorder` has written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Write it, whatever the end was."""
        target = self._directory / PAGE_FILE
        try:
            write_page([self._directory], target)
        except DataUnavailableError as error:
            logger.info("No %s: %s", target, error)
        except FedagentError as error:
            logger.warning("No %s: %s", target, error)
        except Exception as error:  # a page is no reason to lose a run
            logger.warning("No %s: it cannot be drawn (%r); the run is complete.", target, error)
