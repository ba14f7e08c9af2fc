"""What a process saves that does many small jobs. Nothing that they compute changes."""

import ctypes
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
    """Fill records quickly, leave no marks for a profiler that is off, and keep freed memory."""
    keep_freed_memory()
    with quick_records(serialised), no_idle_marks():
        yield


def keep_freed_memory() -> None:
    """Let this process keep up to 256 MB that it has freed, in blocks up to 32 MB, for good.

    A model's worth of memory is freed and allocated with every step and every message. glibc gives
    it back to the kernel, which fills it with zeros page by page when it is wanted again: a quarter
    of the time in which 20 clients train an MLP as one batch.

    Elsewhere than under glibc nothing is changed.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


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
