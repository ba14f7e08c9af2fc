"""What every node does at the moment: a small file beside a run that goes on, for its live view."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedagent.formatting import duration, to_json
from fedagent.report.files import replacing
from fedagent.update import Dispatch, Kind

AT_WORK_FILE = "at_work.json"
EVERY_S = 1.0
"""Wall seconds from one writing to the next."""
_DOES = {Kind.TRAIN: "trains", Kind.EVALUATE: "evaluates", Kind.UNMASK: "unmasks"}


class AtWork:
    """Keeps at_work.json of one run: what was handed out and has not ended, no older than a second.

    Parameters
    ----------
    directory : the run's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / AT_WORK_FILE
        self._jobs: dict[str, dict[str, Any]] = {}
        self._due_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what is in flight."""
        return {"jobs": dict(self._jobs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
        self._jobs = dict(state["jobs"])

    def begin(self, dispatch: Dispatch) -> None:
        """Take note of what a node was asked."""
        self._jobs[dispatch.message_id] = {
            "node_id": str(dispatch.node_id),
            "kind": str(dispatch.kind),
            "version": dispatch.version,
            "local_steps": dispatch.local_steps,
            "sent_s": dispatch.sent_at_s,
        }

    def end(self, dispatch: Dispatch) -> None:
        """Forget what has ended."""
        self._jobs.pop(dispatch.message_id, None)

    def write(self, now_s: float) -> None:
        """Write the file, if a second has passed since the last time.

        Parameters
        ----------
        now_s : the run's clock.

        Raises
        ------
        OutputError
            If the disk does not take it.
        """
        if time.monotonic() < self._due_s:
            return
        with replacing(self._path) as temporary:
            told = {"now_s": now_s, "jobs": list(self._jobs.values())}
            temporary.write_text(to_json(told) + "\n", encoding="utf-8")
        self._due_s = time.monotonic() + EVERY_S

    def clear(self) -> None:
        """Remove the file: the run is over, or begins."""
        self._path.unlink(missing_ok=True)


def read_at_work(directory: Path) -> tuple[float, Mapping[str, list[str]]]:
    """Return the run's clock, and by node in words what it does; nothing of a run that is over.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError
        If the file is there and does not say it.
    """
    try:
        told = json.loads((directory / AT_WORK_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0.0, {}
    doing: dict[str, list[str]] = {}
    for job in told["jobs"]:
        doing.setdefault(str(job["node_id"]), []).append(_in_words(job, float(told["now_s"])))
    return float(told["now_s"]), doing


def _in_words(job: Mapping[str, Any], now_s: float) -> str:
    what = _DOES[Kind(job["kind"])]
    steps = "" if job["local_steps"] is None else f", {job['local_steps']:,} steps"
    since = duration(max(0.0, now_s - job["sent_s"]))
    return f"{what} version {job['version']:,}{steps}, for {since}"
