"""Replies fetched over a network in the background, one by one, so that nobody blocks anybody."""

import heapq
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message

from fedagent._flower import ErrorCode, failed_reply

logger = logging.getLogger("flwr.fedagent")

Pull = Callable[[list[str]], Iterable[Message]]


class ReplyFetcher:
    """Asks for one reply per call, from several threads; whoever owns the model takes what came.

    One ``pull_messages`` for everything that is awaited does not return before the slowest upload
    among what is ready is over, and raises for all if one reply cannot be read. Here a slow upload
    holds one thread, and a reply that cannot be read is answered with an error in its place.

    Parameters
    ----------
    pull : ``Grid.pull_messages``; called from several threads at a time, with one id.
    num_threads : uploads that may be slow at the same time without holding up the others, >= 1.
    interval_s : seconds between two questions for the same reply, > 0.
    tries : how often in a row a reply cannot be read before it is answered with an error, >= 1.
    """

    IS_LIVE = True

    def __init__(
        self, pull: Pull, num_threads: int = 32, interval_s: float = 0.25, tries: int = 3
    ) -> None:
        self._pull, self._num_threads = pull, num_threads
        self._interval_s, self._tries = interval_s, tries
        self._arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._awaited: set[str] = set()
        self._due: list[tuple[float, str]] = []
        self._failures: dict[str, int] = {}
        self._fatal: BaseException | None = None
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    def __call__(self, awaited: Iterable[str]) -> list[Message]:
        """Return the replies that have come since the last call, in the order they came.

        Raises
        ------
        BaseException
            What is no `Exception`: Flower raises such when the run was stopped.
        """
        if self._fatal is not None:
            raise self._fatal
        wanted = set(awaited)
        with self._changed:
            for message_id in wanted - self._awaited:
                heapq.heappush(self._due, (time.monotonic(), message_id))
            self._awaited = wanted
            self._grow(len(wanted))
            self._changed.notify_all()
            replies = []
            while not self._arrived.empty():
                replies.append(self._arrived.get())
            self._awaited.difference_update(r.metadata.reply_to_message_id for r in replies)
        return replies

    def close(self) -> None:
        """Let the threads end; one in the middle of an upload ends with it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _grow(self, num_awaited: int) -> None:
        while len(self._threads) < min(self._num_threads, num_awaited):
            thread = threading.Thread(target=self._work, name="fedagent-replies", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (message_id := self._next()) is not None:
            try:
                replies = list(self._pull([message_id]))
                self._succeeded(message_id)
            except BaseException as error:
                if not isinstance(error, Exception):  # Flower says so that the run was stopped
                    self._fatal = error
                    return
                replies = self._failed(message_id, error)
            for reply in replies:
                self._arrived.put(reply)
            if not replies:
                with self._changed:
                    heapq.heappush(self._due, (time.monotonic() + self._interval_s, message_id))

    def _next(self) -> str | None:
        """Wait for an id that is due; None when it is closed."""
        with self._changed:
            while not self._is_closed:
                wait_s: Any = None
                if self._due:
                    due_s, message_id = self._due[0]
                    wait_s = due_s - time.monotonic()
                    if wait_s <= 0:
                        heapq.heappop(self._due)
                        if message_id in self._awaited:
                            return message_id
                        self._failures.pop(message_id, None)
                        continue
                self._changed.wait(wait_s)
        return None

    def _succeeded(self, message_id: str) -> None:
        with self._changed:
            self._failures.pop(message_id, None)

    def _failed(self, message_id: str, error: BaseException) -> list[Message]:
        """Return an error in place of a reply that cannot be read, if it was tried often enough."""
        with self._changed:
            failures = self._failures[message_id] = self._failures.get(message_id, 0) + 1
            if failures < self._tries:
                return []
            del self._failures[message_id]
        reason = f"the reply cannot be read: {type(error).__name__}: {error}"
        logger.debug("Message %s: %s", message_id, reason)
        return [failed_reply(message_id, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason)]
