"""Who does the clients' work. The outcome does not depend on it."""

import mmap
import multiprocessing
import queue
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

import torch
from flwr.app import Error
from flwr.clientapp import ClientApp

from fedagent._flower import ErrorCode
from fedagent.errors import ConfigurationError, require
from fedagent.records import quick_serialisation
from fedagent.simulation.parcels import Post, shared_memory
from fedagent.simulation.work import Answer, WorkItem, load_app, perform, perform_all, undisturbed

_PATIENCE_S = 2.0  # for a worker that was asked to end
_STARTUP_S = {"fork": 20.0, "spawn": 180.0}  # for a worker to come up; spawned ones import torch

T = TypeVar("T")

Work = WorkItem | Sequence[WorkItem]
_Entry = tuple[Work, "Future[Any]"]  # an answer, or one for each item


class Executor(ABC):
    """Does work items in any order, in parallel or not; each result is fetched once."""

    @abstractmethod
    def submit(self, item: WorkItem) -> "Future[Answer]":
        """Take in an item; it may run at any time from now on."""

    @abstractmethod
    def submit_all(self, items: Sequence[WorkItem]) -> "Future[list[Answer]]":
        """Take in items that one worker does together, see `perform_all`; if it dies, all fail."""

    @abstractmethod
    def result(self, future: "Future[T]") -> T:
        """Return what was submitted for, waiting for that only."""

    def close(self) -> None:
        """Give back whatever the executor holds; items not fetched are dropped."""

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Inline(Executor):
    """Works in this process, one item at a time, when its result is asked for."""

    def __init__(self, client_app: ClientApp | str) -> None:
        self._app = cast(ClientApp, load_app(client_app, ClientApp))
        self._waiting: dict[Future[Any], Work] = {}

    def submit(self, item: WorkItem) -> "Future[Answer]":
        """Remember the item."""
        return self._remember(item)

    def submit_all(self, items: Sequence[WorkItem]) -> "Future[list[Answer]]":
        """Remember the items."""
        return self._remember(items)

    def result(self, future: "Future[T]") -> T:
        """Do the work now."""
        with undisturbed():
            return cast(T, do(self._app, self._waiting.pop(future)))

    def _remember(self, work: Work) -> "Future[Any]":
        future: Future[Any] = Future()
        self._waiting[future] = work
        return future


class Processes(Executor):
    """Persistent worker processes, one torch thread each.

    A worker that dies (out of memory, a crash in native code) is replaced and its item is answered
    with an error; no other item is touched.

    A worker has its next items at hand while it works on one, as long as nobody is idle.

    With GPUs, worker n uses GPU n modulo their number as "cuda": `workers` is as many as there are
    GPUs times those that should share one.

    Parameters
    ----------
    client_app : an app, or ``"module:attribute"``, which is the only way where processes cannot be
        forked: not on Linux, or once CUDA is in use in this process.
    workers : number of processes, >= 1.
    """

    def __init__(self, client_app: ClientApp | str, workers: int) -> None:
        require(workers >= 1, f"workers={workers} must be at least 1; 0 means the Inline executor.")
        self._reference, self.num_workers = client_app, workers
        load_app(client_app, ClientApp)  # an app that cannot be loaded should fail here
        self._items: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._num_idle = workers
        self._counting = threading.Lock()
        self._threads: list[threading.Thread] = []

    def submit(self, item: WorkItem) -> "Future[Answer]":
        """Queue the item for the next free worker."""
        return self._queue(item)

    def submit_all(self, items: Sequence[WorkItem]) -> "Future[list[Answer]]":
        """Queue the items for the next free worker."""
        return self._queue(items)

    def result(self, future: "Future[T]") -> T:
        """Wait for a worker's answer."""
        return future.result()

    def close(self) -> None:
        """Stop the workers; items that nobody waits for are dropped."""
        with suppress(queue.Empty):
            while True:
                self._items.get_nowait()
        for _ in self._threads:
            self._items.put(None)
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.disconnect()

    def _queue(self, work: Work) -> "Future[Any]":
        if not self._workers:
            self._start()
        future: Future[Any] = Future()
        self._items.put((work, future))
        return future

    def _start(self) -> None:
        # Not before there is work: by then the ServerApp has loaded what it shares with the
        # clients (modules, data), and forked workers find it in memory.
        processes = multiprocessing.get_context("fork" if _can_fork() else "spawn")
        if processes.get_start_method() == "spawn" and not isinstance(self._reference, str):
            raise ConfigurationError(
                "Worker processes cannot be forked here (not on Linux, or CUDA is in use), so they "
                "must import the ClientApp themselves: pass it as 'module:attribute', or use "
                "workers=0."
            )
        self._workers = [_Worker(processes, self._reference, n) for n in range(self.num_workers)]
        self._threads = [
            threading.Thread(target=self._feed, args=(w,), daemon=True) for w in self._workers
        ]
        for thread in self._threads:
            thread.start()

    def _feed(self, worker: "_Worker") -> None:
        while (entry := self._items.get()) is not None:
            self._count_idle(-1)
            at_hand = deque([entry])
            worker.send(*entry)
            while at_hand:
                while (more := self._next_at_hand(worker, at_hand)) is not None:
                    worker.send(*more)
                    at_hand.append(more)
                self._settle(worker, at_hand)
            self._count_idle(1)

    def _count_idle(self, change: int) -> None:
        with self._counting:
            self._num_idle += change

    def _next_at_hand(self, worker: "_Worker", at_hand: deque[_Entry]) -> _Entry | None:
        """Take an item for a busy worker, unless it has one or somebody else is free to do it."""
        with suppress(queue.Empty):
            if len(at_hand) < worker.capacity and self._num_idle == 0:
                entry = self._items.get_nowait()
                if entry is None:  # the end is for a worker that is done
                    self._items.put(None)
                return entry
        return None

    def _settle(self, worker: "_Worker", at_hand: deque[_Entry]) -> None:
        """Wait for the answer to the first item at hand."""
        work, future = at_hand.popleft()
        if future.done():  # it could not travel
            return
        try:
            future.set_result(worker.receive())
        except (EOFError, OSError):
            future.set_result(crashed(work))
            worker.start()
            for entry in at_hand:
                worker.send(*entry)


def do(app: ClientApp, work: Work) -> Answer | list[Answer]:
    """Do an item, or several as one."""
    return perform(app, work) if isinstance(work, WorkItem) else perform_all(app, work)


def crashed(work: Work) -> Answer | list[Answer]:
    """Return the answer for work whose process died."""
    reason = "the worker process died (out of memory, or a crash in native code)"
    if isinstance(work, WorkItem):
        return Answer(Error(ErrorCode.CLIENT_APP_CRASHED, reason), work.state)
    return [Answer(Error(ErrorCode.CLIENT_APP_CRASHED, reason), item.state) for item in work]


def _can_fork() -> bool:
    """Whether a forked child can compute: not with CUDA in use, nor after Apple's libraries are."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


class _Worker:
    """One process and this side's end of its pipe."""

    # It does one item after the other, so answers come in the order of the items.

    # One at a time: a worker forked while another's pipe is being set up would hold its far end
    # open, and nobody would see that one die.
    _starting = threading.Lock()

    def __init__(self, processes: Any, app: object, number: int) -> None:
        self._processes, self._app, self._number = processes, app, number
        is_forked = processes.get_start_method() == "fork"
        self._memory = shared_memory() if is_forked else None
        self._is_stopping = False
        self.start()

    def start(self) -> None:
        # A worker inherits the pipes of those started before it, so when this process dies, the
        # youngest sees the end of its own pipe, leaves, and so lets the next one see it.
        with self._starting:
            if self._is_stopping:
                return
            self._connection, theirs = self._processes.Pipe()
            self._post = Post(self._connection, self._memory, side=0)
            self._process = self._processes.Process(
                target=_serve,
                args=(theirs, self._connection, self._app, self._memory, self._number),
                name="fedagent-worker",
            )
            self._process.start()
            theirs.close()
            self._is_ready = False

    @property
    def capacity(self) -> int:
        """How much work it can have at hand."""
        return self._post.capacity

    def send(self, work: Work, future: "Future[Any]") -> None:
        """Hand over work; its future learns if it cannot travel."""
        try:
            self._await_readiness()
            self._post.send(work)
        except (EOFError, OSError):
            pass  # the worker is gone, which whoever waits for its answer will see
        except Exception as error:
            future.set_exception(error)

    def receive(self) -> Answer | list[Answer]:
        """Wait for the next answer."""
        return cast(Answer, self._post.receive())

    def _await_readiness(self) -> None:
        # A process forked while another thread held a lock may never come up: take another.
        while not self._is_ready:
            if self._connection.poll(_STARTUP_S[self._processes.get_start_method()]):
                self._is_ready = bool(self._connection.recv())
            else:
                self._process.kill()
                self._process.join()
                self.start()

    def stop(self) -> None:
        with self._starting:
            self._is_stopping = True
        self._process.terminate()
        self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def disconnect(self) -> None:
        self._connection.close()
        if self._memory is not None:
            self._memory.close()


def _serve(
    connection: Connection,
    ours: Connection,
    app_reference: object,
    memory: mmap.mmap | None,
    number: int,
) -> None:
    ours.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # Whatever the parent does at SIGTERM (Flower, coverage) is not for the child to repeat.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    if torch.cuda.is_available():  # workers share the GPUs of a machine evenly
        torch.cuda.set_device(number % torch.cuda.device_count())
    app = cast(ClientApp, load_app(app_reference, ClientApp))
    connection.send(True)  # ready
    post = Post(connection, memory, side=1)
    with quick_serialisation(), suppress(EOFError, OSError):  # until the parent closes, or is gone
        while True:
            post.send(do(app, post.receive()))
