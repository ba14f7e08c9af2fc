"""The right to write a run's checkpoints: one process at a time has it."""

import fcntl
from pathlib import Path

from fedagent.errors import CheckpointError
from fedagent.journal.durable import writing


class Lock:
    """Held from its making until it is closed, or its process has died, however that came.

    The processes that it forks do not hold it, and may live longer.

    Parameters
    ----------
    folder : made if it is not there.

    Raises
    ------
    CheckpointError
        If another process holds it.
    OutputError
        If the disk does not take it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                self._file.close()
                raise CheckpointError(
                    f"{folder} belongs to a run that is going on in another process: two would "
                    "overwrite each other's work. Wait until it is over, or end it first."
                ) from None

    def close(self) -> None:
        """Let others write."""
        self._file.close()
