"""Starting one of our programs with a pipe to it."""

import os
import subprocess
import sys
from multiprocessing.connection import Connection


def start_with(module: str, end: Connection, *arguments: str) -> "subprocess.Popen[bytes]":
    """Run ``python -m MODULE FD ARGUMENTS``; it owns this end of a pipe, which is closed here."""
    command = [sys.executable, "-m", module, str(end.fileno()), *arguments]
    process = subprocess.Popen(command, pass_fds=[end.fileno()], env=_environment())
    end.close()
    return process


def _environment() -> dict[str, str]:
    """Return the environment for a program that finds what this one finds."""
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
