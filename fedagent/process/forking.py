"""Copies of this process that can compute with threads, and that end with what they belong to."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from fedagent.process.settings import read_settings, restore_settings

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1  # Linux: prctl.h


class ForkingThread:
    """A thread that starts processes and does nothing else.

    A forked process has one thread, the copy of the one that forked. If that one has computed in
    parallel before, OpenMP believes in its helpers, which do not exist in the copy, and waits for
    them for ever. This one has never computed.

    It lives until `close`, or as long as this process: what it has started can be told to end with
    it, see `end_with_parent`.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="fedagent-forks").start()

    def call(self, start: Callable[[], T]) -> T:
        """Return what `start` returns there, or raise what it raises.

        It finds the settings of the caller, those that are each thread's own included.
        """
        settings, variables = read_settings(), copy_context()

        def start_alike() -> T:
            restore_settings(settings)
            return variables.run(start)

        future: Future[Any] = Future()
        self._calls.put((start_alike, future))
        return cast(T, future.result())

    def close(self) -> None:
        """End the thread, and whatever was told to end with it."""
        self._calls.put(None)

    def _run(self) -> None:
        while (asked := self._calls.get()) is not None:
            start, future = asked
            try:
                future.set_result(start())
            except Exception as error:
                future.set_exception(error)


def lead_group() -> None:
    """Begin a group of processes: this one, and all that it will start; see `kill_group`."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def kill_group(process_id: int) -> None:
    """Kill the group that a process leads or has led, however it ended itself."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # nobody is left, or it had not begun one
            os.killpg(process_id, signal.SIGKILL)


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends, and so on downwards.

    On Linux only, even if this process is stopped or hangs. What its main thread forks ends with
    it; what other threads fork does not, because they may end before it.
    """
    if sys.platform != "linux":
        return
    _end_with_starter()
    is_main = False

    def look() -> None:
        nonlocal is_main
        is_main = threading.get_native_id() == os.getpid()

    def follow() -> None:
        if is_main:
            _end_with_starter()

    os.register_at_fork(before=look, after_in_child=follow)


def _end_with_starter() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def cpu_seconds(process_id: int) -> float | None:
    """Return the processor time that a group of processes has used; None where no system says it.

    Parameters
    ----------
    process_id : of the group's leader.
    """
    if not os.path.isdir("/proc/self/fd"):
        return None
    ticks = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has just ended
            with open(f"/proc/{name}/stat", "rb") as file:
                # proc(5): what follows the name is state, parent, group, ..., user and system time.
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[2]) == process_id:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
