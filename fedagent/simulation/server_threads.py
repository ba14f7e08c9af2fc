"""The threads of a ServerApp, and whether any of them may still do something at this moment."""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Set
from concurrent.futures import thread as pools
from types import FrameType

logger = logging.getLogger("flwr.fedagent")

_GIVES_WAY_S = 1e-5  # between two looks, so that what is about to run does
_PATIENCE_S = 1.0  # with a thread that stands still where nothing says what it waits for


class ServerThreads:
    """Tells when all threads of a ServerApp but the calling one are at rest.

    Virtual time may pass only then: a thread that still runs may be about to send a message, which
    has to leave at this very moment.

    A thread is at rest if it waits for others: on a condition (as in an event, a queue or a future)
    that nobody has notified yet, for a thread to end, or as one of a pool for something to do. One
    that has stood still elsewhere for a second, in a lock or a system call, counts as at rest too.

    Threads of a ServerApp are the one that makes this object, those that are started later and
    keep the process alive, and whatever else sends a message.
    """

    def __init__(self) -> None:
        self._own = {threading.current_thread()}
        self._before = set(threading.enumerate())
        self._stood: dict[threading.Thread, tuple[tuple[int, int], float]] = {}

    def join(self) -> None:
        """Count the calling thread as one of the ServerApp's."""
        self._own.add(threading.current_thread())

    def others(self) -> list[threading.Thread]:
        """Return the ServerApp's threads that are alive, without the calling one."""
        if threading.active_count() == 1:  # as usual, and quickly
            return []
        caller = threading.current_thread()
        return [t for t in threading.enumerate() if t is not caller and self._counts(t)]

    def others_are_at_rest(self, asleep: Set[threading.Thread] = frozenset()) -> bool:
        """Return whether none of the others can do anything before something happens.

        Parameters
        ----------
        asleep : threads of which the caller knows that they are at rest.
        """
        if not (others := self.others()):
            return True
        if not self._are_at_rest(others, asleep):
            return False
        # A pool's thread that has just been given something is, for an instant, not seen with it.
        time.sleep(_GIVES_WAY_S)
        return self._are_at_rest(self.others(), asleep)

    def _counts(self, thread: threading.Thread) -> bool:
        return thread in self._own or not (thread.daemon or thread in self._before)

    def _are_at_rest(
        self, threads: Iterable[threading.Thread], asleep: Set[threading.Thread]
    ) -> bool:
        others = [thread for thread in threads if thread not in asleep]
        if not others:
            return True
        frames = sys._current_frames()
        self._stood = {thread: self._stood[thread] for thread in others if thread in self._stood}
        # Every one is looked at, also after the first that is busy: since when it stands is noted.
        at_rest = [self._is_at_rest(thread, frames.get(thread.ident or 0)) for thread in others]
        return all(at_rest)

    def _is_at_rest(self, thread: threading.Thread, frame: FrameType | None) -> bool:
        if frame is None:  # it has not begun yet, or is ending
            return False
        if _waits(frame):
            return True
        place, now_s = (id(frame), frame.f_lasti), time.monotonic()
        since = self._stood.get(thread)
        if since is None or since[0] != place:
            self._stood[thread] = since = (place, now_s)
        stands_still = now_s - since[1] > _PATIENCE_S
        if stands_still:
            logger.debug(
                "Thread %s has stood still at %s:%s for a second: virtual time goes on without it.",
                thread.name,
                frame.f_code.co_filename,
                frame.f_lineno,
            )
        return stands_still


def _waits(frame: FrameType) -> bool:
    """Return whether a thread's innermost frame is one that waits, and goes on waiting."""
    code, names = frame.f_code, frame.f_locals
    if code is threading.Condition.wait.__code__:
        # Who notifies takes the waiter off the list, before the thread that waits wakes up.
        return "waiter" in names and names["waiter"] in names["self"]._waiters
    if code is pools._worker.__code__:
        return "work_item" not in names and bool(names["work_queue"].empty())
    if code in _JOINS:
        return bool(names["self"].is_alive())
    return False


_JOINS = {
    function.__code__
    for name in ("join", "_wait_for_tstate_lock")  # the second does it before Python 3.13
    if (function := getattr(threading.Thread, name, None))
}
