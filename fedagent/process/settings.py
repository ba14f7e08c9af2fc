"""The settings of a process that one client's code may change, and the next one must not find."""

import gc
import locale
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import warnings
from _signal import getsignal  # type: ignore[import-not-found]  # without a detour over enums
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

_NAMES = ("INT", "TERM", "HUP", "ALRM", "CHLD", "PIPE", "USR1", "USR2")
_SIGNALS = [getattr(signal, f"SIG{name}") for name in _NAMES if hasattr(signal, f"SIG{name}")]


class Setting(NamedTuple):
    """Something that a process has once: how to read it, and how to put an older value back."""

    read: Callable[[], Any]
    restore: Callable[[Any], object]


def _default_device() -> torch.device | None:
    # `torch.get_default_device` says "cpu" where none was set; to set that would cost every call.
    context = vars(torch._GLOBAL_DEVICE_CONTEXT).get("device_context")
    return None if context is None else context.device


def _environment() -> dict[Any, Any]:
    variables: dict[Any, Any] = os.environ._data  # type: ignore[attr-defined]
    return variables.copy()  # a hundredth of the time that dict(os.environ) takes


def _restore_environment(before: dict[Any, Any]) -> None:
    now = _environment()
    for name in now.keys() - before.keys():
        del os.environ[os.fsdecode(name)]
    for name, value in before.items():
        if now.get(name) != value:
            os.environ[os.fsdecode(name)] = os.fsdecode(value)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return None


def _restore_working_directory(before: str | None) -> None:
    if before is not None:
        os.chdir(before)


def _handlers() -> list[Any]:
    return [getsignal(number) for number in _SIGNALS]


def _restore_handlers(before: list[Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # where they cannot have been changed either
    for number, handler in zip(_SIGNALS, before, strict=True):
        if handler is not None:  # one that was not set from Python
            signal.signal(number, handler)


def _alarm_is_set() -> bool:
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _restore_alarm(was_set: bool) -> None:
    if not was_set:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _streams() -> tuple[Any, Any, bool, bool]:
    return sys.stdout, sys.stderr, _is_closed(sys.stdout), _is_closed(sys.stderr)


def _is_closed(stream: Any) -> bool:
    return getattr(stream, "closed", False)


def _restore_streams(before: tuple[Any, Any, bool, bool]) -> None:
    sys.stdout, sys.stderr, *were_closed = before
    for name, was_closed in zip(("stdout", "stderr"), were_closed, strict=True):
        if _is_closed(getattr(sys, name)) and not was_closed:  # nothing opens it again
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _cudnn() -> tuple[bool, bool]:
    # What `torch.backends.cudnn` returns as attributes.
    return torch._C._get_cudnn_benchmark(), torch._C._get_cudnn_deterministic()


def _restore_cudnn(before: tuple[bool, bool]) -> None:
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before


SETTINGS = {
    "default dtype": Setting(torch.get_default_dtype, torch.set_default_dtype),
    "default device": Setting(_default_device, torch.set_default_device),
    "number of threads": Setting(torch.get_num_threads, torch.set_num_threads),
    "gradients": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "anomaly detection": Setting(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "determinism": Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "cuDNN's choices": Setting(_cudnn, _restore_cudnn),
    "precision of products": Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "NumPy's errors": Setting(np.geterr, lambda before: np.seterr(**before)),
    "environment": Setting(_environment, _restore_environment),
    "working directory": Setting(_working_directory, _restore_working_directory),
    "signal handlers": Setting(_handlers, _restore_handlers),
    "alarm": Setting(_alarm_is_set, _restore_alarm),
    "standard streams": Setting(_streams, _restore_streams),
    "silence of logs": Setting(lambda: logging.root.manager.disable, logging.disable),
    "warning filters": Setting(
        lambda: list(warnings.filters), lambda before: setattr(warnings, "filters", before)
    ),
    "locale": Setting(
        lambda: locale.setlocale(locale.LC_ALL),
        lambda before: locale.setlocale(locale.LC_ALL, before),
    ),
    "recursion limit": Setting(sys.getrecursionlimit, sys.setrecursionlimit),
    "garbage collection": Setting(
        gc.isenabled, lambda was_on: gc.enable() if was_on else gc.disable()
    ),
    "timeout of sockets": Setting(socket.getdefaulttimeout, socket.setdefaulttimeout),
    "way to start processes": Setting(
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda before: multiprocessing.set_start_method(before, force=True),
    ),
}
"""By name. What each costs is paid twice with every job of a simulation: about 1 us or less."""

_READS = [setting.read for setting in SETTINGS.values()]


@contextmanager
def settings_restored() -> Iterator[None]:
    """Put every setting back that the code inside has changed."""
    before = read_settings()
    try:
        yield
    finally:
        restore_settings(before)


def read_settings() -> list[Any]:
    """Return the values of all settings; some of them are each thread's own."""
    return [read() for read in _READS]


def restore_settings(before: list[Any]) -> None:
    """Put back, in this thread, what `read_settings` returned."""
    now = read_settings()
    if now == before:  # as usual, and quickly
        return
    for setting, is_, was in zip(SETTINGS.values(), now, before, strict=True):
        if is_ != was:
            setting.restore(was)
