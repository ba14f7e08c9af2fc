"""Checkpoints in a folder: whole or not at all, and known to be what was written.

A checkpoint is one safetensors file, ``NUMBER-CHECKSUM.safetensors``, whose name holds the CRC-32
of its bytes. It is written beside its place, taken by the disk (fsync) and then renamed, so a
process that dies at any moment leaves the checkpoints it had. Of those that are torn or have a
changed bit the name tells, and the newest good one is taken.

What cannot be done again is logged from one checkpoint to the next, in ``NUMBER.log``, which begins
where checkpoint NUMBER was taken. So an older checkpoint and all logs since say what a newer does.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from safetensors.numpy import load_file

from fedagent.errors import CheckpointError, Interval, check_fields
from fedagent.journal.capture import Snapshot
from fedagent.journal.content import content_of, parts_of
from fedagent.journal.durable import checksum, flush, write, writing
from fedagent.journal.log import Log, records

CHUNK_BYTES = 2**24

logger = logging.getLogger("flwr.fedagent")


@dataclass(frozen=True)
class Checkpoints:
    """When the state of a run is saved, and where.

    Parameters
    ----------
    folder : where the files are; made when the first one is written.
    unit : what `every` counts: published versions, or updates that the rule has received.
    every : from one checkpoint to the next, >= 1.
    keep : checkpoints that stay, the newest ones, >= 1.
    resume : whether the run goes on from the newest checkpoint in the folder.
    in_simulation : whether a simulated run is saved too, which could be done again.
    """

    folder: Path
    unit: Literal["versions", "updates"] = "versions"
    every: Annotated[int, Interval("[1, inf)")] = 10
    keep: Annotated[int, Interval("[1, inf)")] = 2
    resume: bool = False
    in_simulation: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def next_number(self) -> int:
        """Return the number of the next checkpoint, and of the log that begins there."""
        return 1 + max(map(_number, [*self._files(), *self._logs()]), default=0)

    def log(self, number: int) -> Log:
        """Begin the log of what happens after a checkpoint.

        Raises
        ------
        OutputError
            If the disk does not take it.
        """
        path = self.folder / f"{number:012}.log"
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
        return Log(path)

    def save(self, number: int, snapshot: Snapshot, about: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then drop the oldest ones and the logs that only they need.

        Parameters
        ----------
        number : the next one.
        snapshot : what to write.
        about : plain values by which a run tells whether the checkpoint is one of its own.

        Raises
        ------
        OutputError
            If the disk does not take it; earlier checkpoints stay.
        """
        temporary = self.folder / f".{number:012}.{os.getpid()}.tmp"
        with writing(self.folder / f"{number:012}.safetensors"):
            self.folder.mkdir(parents=True, exist_ok=True)
            for half in self.folder.glob(".*.tmp"):  # of a process that died
                half.unlink(missing_ok=True)
            try:
                parts = parts_of(snapshot, about)
                write(parts, temporary)
                with ThreadPoolExecutor(1) as beside:  # the disk has work, the processor none
                    flushed = beside.submit(flush, temporary)
                    path = self.folder / f"{number:012}-{checksum(parts):08x}.safetensors"
                flushed.result()
                temporary.replace(path)
                flush(self.folder)
            finally:
                temporary.unlink(missing_ok=True)
            for old in self._files()[self.keep :]:
                old.unlink(missing_ok=True)
            oldest = _number(self._files()[-1])
            for log in [log for log in self._logs() if _number(log) < oldest]:
                log.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[int, Snapshot, Mapping[str, Any]]:
        """Return the newest checkpoint that is whole: its number, and what was written.

        Raises
        ------
        CheckpointError
            If there is none.
        """
        for path in self._files():
            if path.stem.rpartition("-")[2] == _checksum_of(path):
                return _number(path), *content_of(load_file(path))
            logger.warning("%s is damaged and left alone; an older checkpoint is taken.", path)
        raise CheckpointError(
            f"{self.folder} has no checkpoint that is whole, so the run cannot go on: start it "
            "anew. With checkpoint=versions or checkpoint=updates a run leaves some."
        )

    def logged(self, since: int) -> Iterator[Snapshot]:
        """Yield the records of all logs since a checkpoint, up to the first that is not whole.

        The last log is cut off there: whoever was writing has died, and others go on.
        """
        paths = sorted(path for path in self._logs() if _number(path) >= since)
        for path in paths:
            whole = yield from records(path)
            if whole == path.stat().st_size:
                continue
            if path == paths[-1]:
                with writing(path):
                    os.truncate(path, whole)
            return

    def _files(self) -> list[Path]:
        """Return the checkpoints, the newest first."""
        return sorted(self.folder.glob("[0-9]*-*.safetensors"), reverse=True)

    def _logs(self) -> list[Path]:
        return list(self.folder.glob("[0-9]*.log"))


def _number(path: Path) -> int:
    return int(path.stem.partition("-")[0])


def _checksum_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"{checksum(iter(partial(file.read, CHUNK_BYTES), b'')):08x}"
