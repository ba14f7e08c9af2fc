"""The first SIGTERM asks a run to end in good order; the second one means it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """Yield a question: has SIGTERM come? A second one does what the first would have done.

    The answer is always no in threads other than the main one, which alone may ask the system for
    signals. A process that is forked meanwhile, such as a client's, ends at once as before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    has_come, owner = False, os.getpid()
    previous: Any = signal.getsignal(signal.SIGTERM)

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal has_come
        has_come = True
        signal.signal(signal.SIGTERM, previous)
        if os.getpid() != owner:
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: has_come
    finally:
        signal.signal(signal.SIGTERM, previous)
