"""Everything that a simulation changes in its process as a whole, to do many small jobs sooner.

Nothing that they compute changes. At the end all of it is undone but for one thing, which the C
library cannot undo: see `keep_freed_memory`.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.autograd import profiler

from fedagent._flower import quick_records
from fedagent.wire.npy import serialised

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_BLOCK, _KEPT_BYTES = 32 << 20, 256 << 20  # the first is the most that glibc accepts


@contextmanager
def process_tuned() -> Iterator[None]:
    """Tune this process; undo it at the end."""
    with quick_records(serialised), no_idle_marks(), freed_memory_kept(), old_objects_left_alone():
        yield


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory, see `keep_freed_memory`, and give it back to the system at the end."""
    libc = keep_freed_memory()
    try:
        yield
    finally:
        if libc is not None:
            libc.malloc_trim(0)


def keep_freed_memory() -> ctypes.CDLL | None:
    """Let this process keep up to 256 MB that it has freed, in blocks up to 32 MB.

    A model's worth of memory is freed and allocated with every step and every message. glibc gives
    it back to the kernel, which fills it with zeros page by page when it is wanted again: a quarter
    of the time in which 20 clients train an MLP as one batch.

    The two limits stay for the life of the process: glibc adapts them to what it sees until they
    are set, and has no call that lets it do so again.

    Returns
    -------
    glibc, or None: elsewhere nothing is changed.
    """
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        return libc
    return None


@contextmanager
def old_objects_left_alone() -> Iterator[None]:
    """Keep the garbage collector off what exists before the run.

    That is some 350,000 objects of torch, Flower and Hydra, a fifth of a second each time that it
    looks through them for nothing, and memory that forked workers would no longer share.
    """
    if gc.get_freeze_count():  # done already: by the caller, or before this process was forked
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Mark(profiler.record_function):
    """A mark that is made only while a profiler is on."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self._told, self.record = (name, args), None

    def __enter__(self) -> Any:
        if not torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            return self
        super().__init__(*self._told)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        if self.record is not None:
            super().__exit__(*exception)


@contextmanager
def no_idle_marks() -> Iterator[None]:
    """Let ``record_function`` do nothing while no profiler is on.

    PyTorch's optimizers mark each ``step`` and ``zero_grad`` whether anybody looks or not: a tenth
    of the time of a job of five steps of logistic regression.
    """
    torchs_own = profiler.record_function
    profiler.record_function = _Mark  # type: ignore[misc]
    try:
        yield
    finally:
        profiler.record_function = torchs_own  # type: ignore[misc]
