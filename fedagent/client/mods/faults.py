"""Faults for tests: what goes wrong is said beforehand, by node and job, and has to happen.

faults = Faults(tmp_path)
faults.at(node=3, job=2, kind="die")
run_simulation(server_app, ClientApp(mods=[faults.mod]), ...)
faults.require_fired()
"""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from fedagent import keys
from fedagent.arrays import NDArray
from fedagent.client.request import partition_of
from fedagent.errors import one_of
from fedagent.wire.records import to_record

Kind = Literal["die", "hang", "raise", "nan", "wrong-shape", "wrong-token", "flood"]
"""The process is killed, the job never ends or raises; or the reply has arrays that are not finite
or of another shape, the token of another job, or a hundred thousand metrics."""


class Faults:
    """Lets jobs of nodes go wrong as planned.

    What has happened is kept in files, so that it is known whichever process did the job.

    Parameters
    ----------
    folder : an empty one, which all processes of the fleet see.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._planned: dict[tuple[int, int], Kind] = {}

    def at(self, *, node: int, job: int, kind: Kind) -> None:
        """Plan a fault.

        Parameters
        ----------
        node : the partition that the node holds.
        job : the number of its train job, from 1.
        kind : what happens; see `Kind`.

        Raises
        ------
        ConfigurationError
            If there is no such kind.
        """
        one_of("kind", kind, get_args(Kind))
        self._planned[node, job] = kind

    def mod(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Do a job as it is done, or as planned: a Flower mod."""
        if not message.metadata.message_type.startswith("train"):
            return call_next(message, context)
        node = partition_of(context)
        with (self._folder / f"jobs-{node}").open("ab") as file:
            file.write(b".")
            job = file.tell()
        kind = self._planned.get((node, job))
        if kind is None:
            return call_next(message, context)
        self._mark(node, job).touch()
        if kind in _INSTEAD:
            _INSTEAD[kind]()
        reply = call_next(message, context)
        _SPOILED[kind](reply.content)
        return reply

    def require_fired(self) -> None:
        """Raise an ``AssertionError`` that names the faults that did not happen."""
        left = [
            f"{kind} at job {job} of node {node}"
            for (node, job), kind in self._planned.items()
            if not self._mark(node, job).exists()
        ]
        if left:
            raise AssertionError(f"Planned, and did not happen: {'; '.join(left)}.")

    def _mark(self, node: int, job: int) -> Path:
        return self._folder / f"fired-{node}-{job}"


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    while True:
        time.sleep(60)


def _raise() -> None:
    raise RuntimeError("a planned fault")


def _not_finite(array: NDArray) -> NDArray:
    return np.full_like(array, np.nan) if array.dtype.kind == "f" else array


def _longer(array: NDArray) -> NDArray:
    return np.append(array, array.dtype.type(0))


def _change_arrays(change: Callable[[NDArray], NDArray], content: RecordDict) -> None:
    for name, record in list(content.array_records.items()):
        content[name] = to_record({key: change(array.numpy()) for key, array in record.items()})


def _lie(content: RecordDict) -> None:
    content["config"] = ConfigRecord({keys.TOKEN: "of another job"})


def _flood(content: RecordDict) -> None:
    for metrics in content.metric_records.values():
        metrics["flood"] = [0.0] * 100_000


_INSTEAD: dict[Kind, Callable[[], None]] = {"die": _die, "hang": _hang, "raise": _raise}
_SPOILED: dict[Kind, Callable[[RecordDict], None]] = {
    "nan": partial(_change_arrays, _not_finite),
    "wrong-shape": partial(_change_arrays, _longer),
    "wrong-token": _lie,
    "flood": _flood,
}
