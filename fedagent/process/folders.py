"""A private folder of a process, which ends with it."""

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_LOCK = "lock"


def own_folder(prefix: str) -> Path:
    """Make a folder that only this user may read, and remove it when the process ends.

    What earlier processes left under the same prefix, since they were killed, is removed as well.

    Raises
    ------
    OSError
        If there is no room, or no permission, where temporary files go.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{prefix}*/{_LOCK}"):
        _remove_if_left(lock)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    _hold(folder / _LOCK)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _hold(path: Path) -> int:
    """Lock a file until the process ends, however it ends; raises OSError if another one does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_if_left(lock: Path) -> None:
    try:
        descriptor = _hold(lock)
    except OSError:  # its process lives, or it is another user's
        return
    shutil.rmtree(lock.parent, ignore_errors=True)
    os.close(descriptor)
