"""Memory that is used again instead of being given back."""

import ctypes
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_BLOCK, _KEPT_BYTES = 32 << 20, 256 << 20  # the first is the most that glibc accepts


def keep_freed_memory() -> None:
    """Let this process keep up to 256 MB that it has freed, in blocks up to 32 MB.

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
