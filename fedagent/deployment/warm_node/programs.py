"""Starting one of our programs with a pipe to it, and a word that comes through the pipe."""

import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection


@dataclass(frozen=True)
class TaskBegun:
    """Which process does a task; it leads a group."""

    task_id: int
    process_id: int


def start_with(module: str, end: Connection, *arguments: str) -> "subprocess.Popen[bytes]":
    """Run ``main(FD, *ARGUMENTS)`` of a module; it owns this end of a pipe, which is closed here.

    The program finds what this one finds: its ``sys.path`` is the same. Its environment is too, as
    ClientApps inherit that and must see the user's, without a PYTHONPATH of ours.
    """
    paths = [path for path in sys.path if path]
    program = f"import sys; sys.path[:] = {paths!r}; from {module} import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, str(end.fileno()), *arguments]
    process = subprocess.Popen(command, pass_fds=[end.fileno()])
    end.close()
    return process
