"""Work for a slow service, done beside a loop that must not wait for it."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

BATCH_SIZE = 1000
MAX_WAITING = 100_000

logger = logging.getLogger("flwr.fedagent")


class Background(Generic[T]):
    """Passes items on from a thread of its own, in order and in batches.

    What cannot be passed on is dropped, the first time with a warning: whoever only watches a run
    must not end it.

    Parameters
    ----------
    receiver : who gets the items, for the log.
    send : takes a batch of up to 1,000 items.
    """

    def __init__(self, receiver: str, send: Callable[[list[T]], None]) -> None:
        self._receiver, self._send = receiver, send
        self._waiting: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._num_lost = 0
        self._thread = threading.Thread(target=self._work, name=f"{receiver} sender", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item; it is lost if 100,000 are waiting already."""
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put(item)
        else:
            self._lose(1, "it is too slow")

    def close(self, patience_s: float = 60.0) -> None:
        """Pass on what is waiting, for so many seconds at most, and end the thread."""
        self._waiting.put(None)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self._lose(self._waiting.qsize(), f"it did not take them within {patience_s:g} s")
        if self._num_lost:
            logger.warning("%s: %d values were lost.", self._receiver, self._num_lost)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            batch, is_over = [item], False
            while len(batch) < BATCH_SIZE and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    is_over = True
                    break
                batch.append(following)
            try:
                self._send(batch)
            except Exception as error:
                self._lose(len(batch), repr(error))
            if is_over:
                return

    def _lose(self, number: int, cause: str) -> None:
        if not self._num_lost:
            logger.warning(
                "%s does not take values (%s); the run goes on without.", self._receiver, cause
            )
        self._num_lost += number
