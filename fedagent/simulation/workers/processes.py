"""Worker processes that do the clients' work; a crash costs only the job that caused it.

No threads: each call that submits or waits hands on what there is to do and takes in what is done.
A thread per worker would compete for the interpreter with the one that owns the model.
"""

import heapq
import itertools
import mmap
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from ctypes import c_int64
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar, cast

import torch
from flwr.clientapp import ClientApp

from fedagent.errors import ConfigurationError, require
from fedagent.simulation.process_tuning import process_tuned
from fedagent.simulation.workers.base import Executor, Work, crash_of, run_work
from fedagent.simulation.workers.shared_memory import SharedMemoryChannel, shared_memory
from fedagent.simulation.workers.work import ClientResult, WorkItem, load_app

_PATIENCE_S = 2.0  # for a worker that was asked to end
_STARTUP_S = {"fork": 20.0, "spawn": 180.0}  # for a worker to come up; spawned ones import torch

T = TypeVar("T")


class _Task(NamedTuple):
    """Work, and the future that waits for it; tasks are in the order in which to be done."""

    due_s: float
    number: int
    work: Work
    future: "Future[Any]"


class Processes(Executor):
    """Persistent worker processes, one torch thread each.

    A worker that dies (out of memory, a crash in native code) is replaced and its item is answered
    with an error; no other item is touched.

    A worker has its next items at hand, the one that is due first on top, so that it goes on
    without being told; all others wait here.

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
        self._workers: list[_Worker] = []
        self._waiting: list[_Task] = []  # a heap
        self._numbers = itertools.count()

    def submit(self, item: WorkItem, due_s: float = 0.0) -> "Future[ClientResult]":
        """Hand the item to the least busy worker, or keep it until one has room."""
        return self._queue(item, due_s)

    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> "Future[list[ClientResult]]":
        """Hand the items to the least busy worker, or keep them until one has room."""
        return self._queue(items, due_s)

    def result(self, future: "Future[T]") -> T:
        """Wait for a worker's answer, and hand on work meanwhile."""
        while not future.done():
            self._take_answers(timeout_s=None)
            self._hand_on()
        return future.result()

    def close(self) -> None:
        """Stop the workers; items not fetched are dropped."""
        self._waiting.clear()
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()
        self._workers.clear()

    def _queue(self, work: Work, due_s: float) -> "Future[Any]":
        if not self._workers:
            self._start()
        task = _Task(due_s, next(self._numbers), work, Future())
        heapq.heappush(self._waiting, task)
        self._hand_on()
        return task.future

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

    def _take_answers(self, timeout_s: float | None) -> bool:
        """Take in an answer of every worker that has any; wait for the first (None: for ever)."""
        busy = {worker.connection: worker for worker in self._workers if worker.at_hand}
        ready = wait(busy, timeout_s)
        for connection in ready:
            busy[cast(Connection, connection)].receive()
        return bool(ready)

    def _hand_on(self) -> None:
        """Give waiting work to the workers that have room for it."""
        while self._waiting:
            worker = min(self._workers, key=lambda w: len(w.at_hand))
            if len(worker.at_hand) < worker.capacity:
                worker.send(heapq.heappop(self._waiting))
            elif not self._take_answers(timeout_s=0):
                return


def _can_fork() -> bool:
    """Whether a forked child can compute: not with CUDA in use, nor after Apple's libraries are."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


class _Worker:
    """One process and this side's end of its pipe.

    Attributes
    ----------
    at_hand : what it has been sent and not answered yet, by number.
    """

    def __init__(self, processes: Any, app: object, number: int) -> None:
        self._processes, self._app, self._number = processes, app, number
        is_forked = processes.get_start_method() == "fork"
        self._memory = shared_memory() if is_forked else None
        self._doing = processes.RawValue(c_int64, -1)  # the task that it works on
        self.at_hand: dict[int, _Task] = {}
        self._died_idle = False
        self._start()

    def _start(self) -> None:
        # A worker inherits the pipes of those started before it, so when this process dies, the
        # youngest sees the end of its own pipe, leaves, and so lets the next one see it.
        self.connection, theirs = self._processes.Pipe()
        self._channel = SharedMemoryChannel(self.connection, self._memory, side=0)
        self._doing.value = -1
        self._process = self._processes.Process(
            target=_serve,
            args=(theirs, self.connection, self._app, self._memory, self._number, self._doing),
            name="fedagent-worker",
        )
        self._process.start()
        theirs.close()
        self._is_ready = False

    @property
    def capacity(self) -> int:
        """How much work it can have at hand."""
        return self._channel.capacity

    def send(self, task: _Task) -> None:
        """Hand over work; its future learns if it cannot travel."""
        self.at_hand[task.number] = task
        try:
            self._await_readiness()
            self._channel.send((task.due_s, task.number, task.work))
        except (EOFError, OSError):
            pass  # the worker is gone, which `receive` will see
        except Exception as error:
            del self.at_hand[task.number]
            task.future.set_exception(error)

    def receive(self) -> None:
        """Wait for the next result and give it to its future, or an error if the worker died."""
        try:
            number, answer = self._channel.receive()
        except (EOFError, OSError):
            self._replace()
        else:
            self._died_idle = False
            self.at_hand.pop(number).future.set_result(answer)

    def _replace(self) -> None:
        """Give an error for what a dead worker was doing; a new one gets the rest of what it had.

        If it was doing nothing, all of it, but only once: to receive one of them may be what kills.
        """
        self._bury()
        lost = self._doing.value if self._doing.value in self.at_hand else None
        if lost is None and self._died_idle:
            lost = min(self.at_hand)
        self._died_idle = lost is None
        if lost is not None:
            task = self.at_hand.pop(lost)
            task.future.set_result(crash_of(task.work))
        self._start()
        for waiting in list(self.at_hand.values()):
            self.send(waiting)

    def _await_readiness(self) -> None:
        # A process forked while another thread held a lock may never come up: take another.
        while not self._is_ready:
            if self.connection.poll(_STARTUP_S[self._processes.get_start_method()]):
                self._is_ready = bool(self.connection.recv())
            else:
                self._bury()
                self._start()

    def _bury(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()

    def terminate(self) -> None:
        """Ask the process to end."""
        self._process.terminate()

    def join(self) -> None:
        """Wait until it has, not for long."""
        self._process.join(_PATIENCE_S)
        self._bury()
        if self._memory is not None:
            self._memory.close()


def _serve(
    connection: Connection,
    ours: Connection,
    app_reference: object,
    memory: mmap.mmap | None,
    number: int,
    doing: c_int64,
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
    channel = SharedMemoryChannel(connection, memory, side=1)
    at_hand: list[tuple[float, int, Work]] = []  # a heap
    with process_tuned(), suppress(EOFError, OSError):  # until the parent closes, or is gone
        while True:
            while not at_hand or connection.poll():
                heapq.heappush(at_hand, channel.receive())
            _, doing.value, work = heapq.heappop(at_hand)
            channel.send((doing.value, run_work(app, work, is_own=True)))
