"""Checkpoints in a folder: whole or not at all, and known to be what was written.

A checkpoint is one safetensors file, ``NUMBER-DIGEST.safetensors``, whose name holds the sha256 of
its bytes. It is written beside its place, taken by the disk (fsync) and then renamed, so a process
that dies at any moment leaves the checkpoints it had. Of those that are torn or have a changed bit
the name tells, and the newest good one is taken.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from safetensors.numpy import load_file, save_file

from fedagent.errors import CheckpointError, Interval, check_fields
from fedagent.journal.capture import Snapshot
from fedagent.journal.durable import flush, writing

logger = logging.getLogger("flwr.fedagent")

_STATE = "state"  # the JSON, as bytes: metadata of a safetensors file may be 100 MB at most


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
    """

    folder: Path
    unit: Literal["versions", "updates"] = "versions"
    every: Annotated[int, Interval("[1, inf)")] = 10
    keep: Annotated[int, Interval("[1, inf)")] = 2
    resume: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def save(self, snapshot: Snapshot, about: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then drop the oldest ones.

        Parameters
        ----------
        snapshot : what to write.
        about : plain values by which a run tells whether the checkpoint is one of its own.

        Raises
        ------
        OutputError
            If the disk does not take it; earlier checkpoints stay.
        """
        state = {"about": dict(about), "tree": snapshot.tree, "live": snapshot.live}
        encoded = np.frombuffer(json.dumps(state, separators=(",", ":")).encode(), np.uint8)
        number = 1 + max((int(p.stem.partition("-")[0]) for p in self._files()), default=0)
        temporary = self.folder / f".{number:012}.{os.getpid()}.tmp"
        with writing(self.folder / f"{number:012}.safetensors"):
            self.folder.mkdir(parents=True, exist_ok=True)
            for half in self.folder.glob(".*.tmp"):  # of a process that died
                half.unlink(missing_ok=True)
            try:
                save_file({_STATE: encoded, **snapshot.arrays}, temporary)
                path = self.folder / f"{number:012}-{_digest(temporary)}.safetensors"
                flush(temporary)
                temporary.replace(path)
                flush(self.folder)
            finally:
                temporary.unlink(missing_ok=True)
            for old in self._files()[self.keep :]:
                old.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Snapshot, Mapping[str, Any]]:
        """Return the newest checkpoint that is whole, and what it is about.

        Raises
        ------
        CheckpointError
            If there is none.
        """
        for path in self._files():
            if path.stem.rpartition("-")[2] == _digest(path):
                return _read(path)
            logger.warning("%s is damaged and left alone; an older checkpoint is taken.", path)
        raise CheckpointError(
            f"{self.folder} has no checkpoint that is whole, so the run cannot go on: start it "
            "anew. With checkpoint=versions or checkpoint=updates a run leaves some."
        )

    def _files(self) -> list[Path]:
        """Return the checkpoints, the newest first."""
        return sorted(self.folder.glob("[0-9]*-*.safetensors"), reverse=True)


def _read(path: Path) -> tuple[Snapshot, Mapping[str, Any]]:
    arrays = load_file(path)
    state = json.loads(arrays.pop(_STATE).tobytes())
    live = [[_tuples(way) for way in ways] for ways in state["live"]]
    return Snapshot(state["tree"], arrays, live), state["about"]


def _tuples(way: Any) -> Any:
    return None if way is None else tuple((step, name) for step, name in way)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
