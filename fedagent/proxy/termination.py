"""The first SIGTERM asks a run to end in good order; the second one means it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def termination(heed: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a question: has SIGTERM come? A second one does what the first would have done.

    The answer is always no without `heed`, and in threads other than the main one, which alone may
    ask the system for signals.
    """
    if not heed or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    has_come = False
    previous: Any = signal.getsignal(signal.SIGTERM)

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal has_come
        has_come = True
        signal.signal(signal.SIGTERM, previous)

    signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: has_come
    finally:
        signal.signal(signal.SIGTERM, previous)
