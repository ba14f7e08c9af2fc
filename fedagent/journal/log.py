"""Logs of what happened after a checkpoint: files that grow by records, each with its checksum.

A record is its length, its CRC-32 and the bytes of a safetensors file. What is behind the last
whole one was being written when the process ended, or is damaged, and is never used.
"""

import logging
import os
import struct
from collections.abc import Generator
from pathlib import Path

from safetensors.numpy import load

from fedagent.journal.capture import Snapshot
from fedagent.journal.content import content_of, parts_of
from fedagent.journal.durable import checksum, flush, writing

logger = logging.getLogger("flwr.fedagent")

_HEAD = struct.Struct(">4sQI")
_MARK = b"fedj"


class Log:
    """A file that grows by records.

    Parameters
    ----------
    path : a new file, in a folder that is there.

    Raises
    ------
    OutputError
        If the disk does not take it.
    """

    IS_LIVE = True

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = path.open("xb")
            flush(path.parent)

    def append(self, snapshot: Snapshot, is_urgent: bool) -> None:
        """Add a record; return when the disk has it, and all before it, if it `is_urgent`.

        Raises
        ------
        OutputError
            If the disk does not take it.
        """
        parts = parts_of(snapshot, {})
        with writing(self._path):
            self._file.write(_HEAD.pack(_MARK, sum(map(len, parts)), checksum(parts)))
            self._file.writelines(parts)
            self._file.flush()  # a process that dies keeps it; a machine only what is urgent
            if is_urgent:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let the file go, when the disk has all that was added."""
        if self._file.closed:
            return
        with writing(self._path), self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


def records(path: Path) -> Generator[Snapshot, None, int]:
    """Yield the records of a file up to the first that is not whole; return how far that is.

    What comes after is named in the log.
    """
    whole = 0
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            mark, size, crc = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0, -1)
            payload = file.read(size) if mark == _MARK else b""
            if len(payload) != size or checksum([payload]) != crc:
                logger.warning(
                    "%s: its last %d bytes are no whole record and are left out. They were being "
                    "written when the process ended, or are damaged.",
                    path,
                    path.stat().st_size - whole,
                )
                break
            yield content_of(load(payload))[0]
            whole = file.tell()
    return whole
