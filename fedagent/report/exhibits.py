"""What the final model does, to look at: the application's pictures and texts, beside the plot."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from flwr.app import ArrayRecord

from fedagent.callbacks.base import Callback
from fedagent.errors import FedagentError, require
from fedagent.report.files import replacing
from fedagent.report.recorder import PLOT_FILE
from fedagent.statistics import Statistics
from fedagent.stopping import RunEnd
from fedagent.tasks.showcase import Showcase

logger = logging.getLogger("flwr.fedagent")

_NAME = re.compile(r"\w[\w .-]*", re.ASCII)


class Exhibits(Callback):
    """Save what an application shows of the final model of a completed run.

    Whatever goes wrong is one warning: it comes after the run's own files, and costs none of them.

    Parameters
    ----------
    directory : the run's folder; figures become plots/NAME.png in it, texts plots/NAME.txt.
    show : called once, with the final model.
    """

    def __init__(self, directory: Path, show: Callable[[ArrayRecord], Showcase]) -> None:
        self._folder = (directory / PLOT_FILE).parent
        self._show = show

    def on_end(
        self, statistics: Statistics, end: RunEnd, arrays: Callable[[], ArrayRecord]
    ) -> None:
        """Save figures and texts, unless the run did not do what it was asked to."""
        if not end.is_complete:
            return
        try:
            save(self._show(arrays()), self._folder)
        except FedagentError as error:
            logger.warning("Nothing to look at in %s: %s", self._folder, error)
        except Exception as error:  # an application's own code; the run is on the disk
            logger.warning(
                "Nothing to look at in %s: the application's showcase failed (%r); the run itself "
                "is complete.",
                self._folder,
                error,
            )


def save(showcase: Showcase, folder: Path) -> None:
    """Write figures as NAME.png and texts as NAME.txt into `folder`, made if need be.

    Raises
    ------
    ConfigurationError
        If a name is no file's, or that of the run's own plot.
    OutputError
        If a file cannot be written.
    """
    own = Path(PLOT_FILE).stem
    for name in (*showcase.figures, *showcase.texts):
        require(
            _NAME.fullmatch(name) is not None and name != own,
            f"A showcase cannot be named {name!r}: take letters, digits, '-' and '_', and not "
            f"{own!r}, which is the run's own plot.",
        )
    for name, figure in showcase.figures.items():
        with replacing(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    for name, text in showcase.texts.items():
        with replacing(folder / f"{name}.txt") as temporary:
            temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
