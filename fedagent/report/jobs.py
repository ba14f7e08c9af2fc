"""Every job of a run, a line each: what `fedagent calibrate` measures by, and a page draws."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedagent.callbacks.base import Settlement
from fedagent.errors import ConfigurationError
from fedagent.formatting import to_json
from fedagent.report.files import append_lines, cut, flushed
from fedagent.update import Kind, Outcome

logger = logging.getLogger("flwr.fedagent")

JOBS_FILE = "jobs.jsonl"
MOST_JOBS = 100_000
"""How many jobs of a run are written down, the first ones: some 28 MB."""
_DONE = (Outcome.APPLIED, Outcome.REJECTED)


@dataclass(frozen=True, slots=True)
class Job:
    """A train job, whatever became of it. Runs of earlier versions tell less: see the defaults.

    Attributes
    ----------
    node_id : its node; text, because many readers take no integers of 64 bits.
    local_steps : B_k >= 1 that was asked for; None where the ClientApp decides.
    duration_s : seconds on the run's clock from when the node could begin it to the reply: both
        transfers, the local steps, and whatever else keeps a node busy.
    bytes_down, bytes_up : serialised model bytes of message and reply.
    outcome, reason : how it ended, see `Outcome`; no reason where it was applied.
    ended_s : when, in seconds on the run's clock; None where it is unknown.
    version : the base version; None where it is unknown.
    staleness : of the update that was applied, in versions; None if there is none.
    num_examples, discount : of that update, as in `Settlement`.
    """

    node_id: str
    local_steps: int | None
    duration_s: float
    bytes_down: int
    bytes_up: int
    outcome: str = Outcome.APPLIED
    reason: str = ""
    ended_s: float | None = None
    version: int | None = None
    staleness: int | None = None
    num_examples: float | None = None
    discount: float | None = None

    @property
    def is_done(self) -> bool:
        """Whether its node did it, so that how long it took says something of the node."""
        return self.outcome in _DONE


class JobLog:
    """Writes jobs.jsonl of one run: the first `MOST_JOBS`, some at a time.

    Parameters
    ----------
    directory : the run's folder, which exists when the first line is written.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / JOBS_FILE
        self._waiting: list[dict[str, Any]] = []
        self._num_left = MOST_JOBS
        self._num_bytes = 0

    def begin(self, goes_on: bool) -> None:
        """Forget an earlier run's jobs; in a run that `goes_on`, those after its checkpoint."""
        if goes_on and self._num_bytes:
            cut(self._path, self._num_bytes)
        else:
            self._path.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Return how much of the file is written, and what waits to be."""
        num_bytes = flushed(self._path)
        return {"num_bytes": num_bytes, "waiting": list(self._waiting), "num_left": self._num_left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the same file."""
        self._num_bytes, self._num_left = int(state["num_bytes"]), int(state["num_left"])
        self._waiting = list(state["waiting"])

    def add(self, settlement: Settlement, now_s: float) -> None:
        """Take note of a train job that ended at `now_s` on the run's clock."""
        dispatch = settlement.dispatch
        if dispatch.kind is not Kind.TRAIN or self._num_left <= 0:
            return
        self._waiting.append(
            {
                "node_id": str(dispatch.node_id),
                "local_steps": dispatch.local_steps,
                "duration_s": settlement.duration_s,
                "bytes_down": dispatch.bytes_down,
                "bytes_up": settlement.bytes_up,
                "outcome": str(settlement.outcome),
                "reason": settlement.reason,
                "ended_s": now_s,
                "version": dispatch.version,
                "staleness": settlement.staleness,
                "num_examples": settlement.num_examples,
                "discount": settlement.discount,
            }
        )
        self._num_left -= 1
        if not self._num_left:
            logger.info(
                "%s has %d jobs, as many as it may; later ones are not written.",
                self._path,
                MOST_JOBS,
            )

    def flush(self) -> None:
        """Write what has been noted.

        Raises
        ------
        OutputError
            If the disk does not take it.
        """
        if self._waiting:
            append_lines(self._path, map(to_json, self._waiting))
            self._waiting = []


def read_jobs(directory: Path) -> Sequence[Job]:
    """Return the jobs that were done, of all runs in `directory` and below, by folder.

    Within a folder they are in the order in which they ended.

    Raises
    ------
    ConfigurationError
        If there are none, or a file cannot be read; the message says where.
    """
    paths = sorted(directory.rglob(JOBS_FILE))
    jobs = [job for path in paths for job in _jobs_in(path) if job.is_done]
    if not jobs:
        what = f"holds no {JOBS_FILE} with a job" if directory.is_dir() else "is not a folder"
        raise ConfigurationError(
            f"{directory} {what}. Give the output folder of a run, or one above several of "
            "them: it has a line for every job that a node has done."
        )
    return jobs


def _jobs_in(path: Path) -> list[Job]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}).") from error
    return [_named(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _named(line: str, place: str) -> Job:
    try:
        return read_job(line)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{place}, is no job ({error}); remove the line, or leave the folder out."
        ) from error


def read_job(line: str) -> Job:
    """Return the job that a line of jobs.jsonl tells of.

    Raises
    ------
    ValueError, TypeError
        If it tells of none.
    """
    job = Job(**json.loads(line))
    if not all(n >= 0 for n in (job.duration_s, job.bytes_down, job.bytes_up)):
        raise ValueError("durations and bytes must be at least 0")
    if job.local_steps is not None and job.local_steps < 1:
        raise ValueError(f"local_steps={job.local_steps} must be at least 1")
    return job
