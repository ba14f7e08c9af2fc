"""Worker processes that do the clients' work; a crash costs only the job that caused it.

No threads: each call that submits or waits hands on what there is to do and takes in what is done.
A thread per worker would compete for the interpreter with the one that owns the model.
"""

import heapq
import itertools
import multiprocessing
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

import torch
from flwr.clientapp import ClientApp

from fedagent.errors import ConfigurationError, require
from fedagent.process.forking import ForkingThread
from fedagent.simulation.workers.base import Executor, Pending, Work
from fedagent.simulation.workers.work import ClientResult, WorkItem, load_app
from fedagent.simulation.workers.worker import Task, Worker

_LOOK_EVERY_S = 1.0  # at workers that do not answer

T = TypeVar("T")


class Processes(Executor):
    """Persistent worker processes, one torch thread each.

    A worker that dies (out of memory, a crash in native code) or hangs is replaced and its item is
    answered with an error; no other item is touched. Whatever a client has started in a worker ends
    with it.

    A worker has its next items at hand, the one that is due first on top, so that it goes on
    without being told; all others wait here.

    With GPUs, worker n uses GPU n modulo their number as "cuda": `workers` is as many as there are
    GPUs times those that should share one.

    Parameters
    ----------
    client_app : an app, or ``"module:attribute"``, which is the only way where processes cannot be
        forked: not on Linux, or once CUDA is in use in this process.
    workers : number of processes, >= 1.
    job_limit_s : seconds of real time that one item may take; None for as long as it computes, see
        `fedagent.process.watching`.
    """

    def __init__(
        self, client_app: ClientApp | str, workers: int, job_limit_s: float | None = None
    ) -> None:
        require(workers >= 1, f"workers={workers} must be at least 1; 0 means the Inline executor.")
        self._reference, self.num_workers, self._job_limit_s = client_app, workers, job_limit_s
        load_app(client_app, ClientApp)  # an app that cannot be loaded should fail here
        self._workers: list[Worker] = []
        self._waiting: list[Task] = []  # a heap
        self._forks: ForkingThread | None = None
        self._looked_s = time.monotonic()
        self._numbers = itertools.count()

    def submit(self, item: WorkItem, due_s: float = 0.0) -> Pending[ClientResult]:
        """Hand the item to the least busy worker, or keep it until one has room."""
        return self._queue(item, due_s)

    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> Pending[list[ClientResult]]:
        """Hand the items to the least busy worker, or keep them until one has room."""
        return self._queue(items, due_s)

    def result(self, future: Pending[T]) -> T:
        """Wait for a worker's answer, and hand on work meanwhile."""
        while not future.done():
            self._take_answers(timeout_s=_LOOK_EVERY_S)
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
        if self._forks is not None:
            self._forks.close()

    def _queue(self, work: Work, due_s: float) -> Pending[Any]:
        if not self._workers:
            self._start()
        task = Task(due_s, next(self._numbers), work, Pending())
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
        self._forks = ForkingThread()
        self._workers = [
            Worker(processes, self._forks, self._reference, n, self._job_limit_s)
            for n in range(self.num_workers)
        ]

    def _take_answers(self, timeout_s: float) -> bool:
        """Take in an answer of every worker that has any; wait for the first."""
        busy = {worker.connection: worker for worker in self._workers if worker.at_hand}
        ready = wait(busy, timeout_s)
        for connection in ready:
            busy.pop(cast(Connection, connection)).receive()
        if time.monotonic() - self._looked_s >= _LOOK_EVERY_S:
            for silent in busy.values():
                silent.look()
            self._looked_s = time.monotonic()
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
