"""Everything that a simulation changes in its process as a whole, to do many small jobs sooner.

Nothing that they compute changes. At the end all of it is undone but for one thing, which the C
library cannot undo: see `keep_freed_memory`.
"""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any

import torch
from torch.autograd import profiler
from torch.optim import Optimizer, optimizer

from fedagent._flower import quick_records
from fedagent.wire.npy import serialised

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_BLOCK, _KEPT_BYTES = 32 << 20, 256 << 20  # the first is the most that glibc accepts


@contextmanager
def process_tuned() -> Iterator[None]:
    """Tune this process; undo it at the end."""
    with (
        quick_records(serialised),
        no_idle_marks(),
        no_idle_compiler(),
        freed_memory_kept(),
        old_objects_left_alone(),
    ):
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


@contextmanager
def no_idle_compiler() -> Iterator[None]:
    """Let optimizers do without PyTorch's compiler while nothing has imported it.

    They tell it what it must not compile, and import it for that: two seconds of work and 160 MB in
    every process that makes an optimizer, whether anything is ever compiled or not. A class whose
    ``step`` PyTorch has wrapped meanwhile keeps what this put there, which does the same.
    """
    before = [
        (kind, name, method, _INSTEAD[method.__code__](method))
        for kind in list(vars(torch.optim).values())
        if isinstance(kind, type) and issubclass(kind, Optimizer)
        for name, method in vars(kind).items()
        if getattr(method, "__code__", None) in _INSTEAD
    ]
    for kind, name, _, instead in before:
        setattr(kind, name, instead)
    try:
        yield
    finally:
        for kind, name, method, instead in before:
            if vars(kind)[name] is instead:
                setattr(kind, name, method)


def _kept_off(method: Any) -> Callable[..., Any]:
    """Stand for a method that the compiler is to leave alone."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        is_idle = "torch._dynamo" not in sys.modules
        return (method.__wrapped__ if is_idle else method)(*args, **kwargs)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]
    return call


def _without_gradients(step: Any) -> Callable[..., Any]:
    """Stand for a step, which takes gradients only if its optimizer is differentiable."""

    @wraps(step)
    def call(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" in sys.modules:
            return step(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step.__wrapped__(self, *args, **kwargs)

    return call


_INSTEAD = {
    wrapper(lambda: None).__code__: stand_in
    for wrapper, stand_in in (
        (getattr(torch, "_disable_dynamo", None), _kept_off),
        (getattr(optimizer, "_use_grad_for_differentiable", None), _without_gradients),
    )
    if wrapper is not None  # another version of PyTorch goes its own way
}
"""The code that all functions of a wrapper of PyTorch's share, and what stands for one of them."""
