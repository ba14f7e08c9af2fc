"""Threads of a ServerApp: when none of them can do anything before something happens."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue

import pytest

from fedagent.simulation.server_threads import ServerThreads


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> bool:
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


class Waiting:
    """Ways in which a thread waits, and how to let it go on."""

    def __init__(self) -> None:
        self.event, self.queue, self.future = threading.Event(), Queue(), Future()
        self.lock = threading.Lock()
        self.lock.acquire()
        self.condition, self.other = threading.Condition(), threading.Event()
        self.ways = {
            "event": (self.event.wait, self.event.set),
            "queue": (self.queue.get, lambda: self.queue.put(1)),
            "future": (self.future.result, lambda: self.future.set_result(1)),
            "join": (self._join, self.other.set),
            "lock": (self.lock.acquire, self.lock.release),
            "sleep": (lambda: time.sleep(2.5), lambda: None),
        }

    def _join(self) -> None:
        thread = threading.Thread(target=self.other.wait)
        thread.start()
        thread.join()


@pytest.mark.parametrize("way", Waiting().ways)
def test_a_thread_that_waits_is_at_rest(way):
    threads = ServerThreads()
    wait, release = Waiting().ways[way]
    waits = threading.Thread(target=wait)
    waits.start()
    began_s = time.monotonic()
    assert eventually(threads.others_are_at_rest)
    # What says that it waits is seen at once; of anything else standing still tells.
    assert (time.monotonic() - began_s > 0.9) is (way in ("lock", "sleep"))
    release()
    waits.join(10)
    assert threads.others() == []


def test_a_thread_at_work_is_not_at_rest():
    threads, ends = ServerThreads(), threading.Event()

    def compute() -> None:
        while not ends.is_set():
            sum(range(50))

    worker = threading.Thread(target=compute)
    worker.start()
    assert not eventually(threads.others_are_at_rest, within_s=2.0)
    ends.set()
    worker.join()
    assert threads.others_are_at_rest()


def test_a_thread_that_has_been_woken_is_not_at_rest_before_it_has_run():
    """The lock that its condition gives back is held here, so it cannot get on."""
    threads, condition = ServerThreads(), threading.Condition()

    def wait() -> None:
        with condition:
            condition.wait()

    waits = threading.Thread(target=wait)
    waits.start()
    assert eventually(threads.others_are_at_rest)
    with condition:
        condition.notify()
        assert not any(threads.others_are_at_rest() for _ in range(100))
    waits.join()


def test_a_pool_rests_when_it_has_nothing_to_do():
    threads, go_on = ServerThreads(), threading.Event()
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(go_on.wait)
        assert eventually(threads.others_are_at_rest)
        go_on.set()
        assert eventually(lambda: pool._work_queue.empty() and threads.others_are_at_rest())
        assert len(threads.others()) == 3


def test_daemons_and_older_threads_count_only_if_they_send():
    ends, joins, joined = threading.Event(), threading.Event(), threading.Event()
    old = threading.Thread(target=ends.wait)
    old.start()
    threads = ServerThreads()

    def serve() -> None:
        joins.wait()
        threads.join()
        joined.set()
        ends.wait()

    daemon = threading.Thread(target=serve, daemon=True)
    daemon.start()
    assert threads.others() == []
    joins.set()
    joined.wait()
    assert threads.others() == [daemon]
    ends.set()
    for thread in (old, daemon):
        thread.join()
