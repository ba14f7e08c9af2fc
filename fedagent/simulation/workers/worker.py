"""One worker process: what it has been given, what it answers, and how its end is noticed."""

import heapq
import mmap
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, cast

import torch
from flwr.clientapp import ClientApp

from fedagent.process.forking import ForkingThread, end_with_parent, kill_group, lead_group
from fedagent.process.watching import NOTHING, CurrentJob, JobWatch
from fedagent.simulation.process_tuning import process_tuned
from fedagent.simulation.workers.base import DIED, Pending, Work, crash_of, run_work
from fedagent.simulation.workers.shared_memory import SharedMemoryChannel, shared_memory
from fedagent.simulation.workers.work import WorkItem, load_app

_MOST_NODES = 5  # named in a line
_PATIENCE_S = 2.0  # for a worker that was asked to end
_STARTUP_S = {"fork": 20.0, "spawn": 180.0}  # for a worker to come up; spawned ones import torch


class Task(NamedTuple):
    """Work, and the future that waits for it; tasks are in the order in which to be done."""

    due_s: float
    number: int
    work: Work
    future: Pending[Any]


class Worker:
    """One process and this side's end of its pipe.

    Attributes
    ----------
    at_hand : what it has been sent and not answered yet, by number.

    Parameters
    ----------
    processes : a context of `multiprocessing`.
    forks : the thread that starts the process.
    app : what it loads.
    number : of the worker, from 0.
    job_limit_s : see `Processes`.
    """

    def __init__(
        self,
        processes: Any,
        forks: ForkingThread,
        app: object,
        number: int,
        job_limit_s: float | None,
    ) -> None:
        self._processes, self._forks, self._app, self._number = processes, forks, app, number
        is_forked = processes.get_start_method() == "fork"
        self._memory = shared_memory() if is_forked else None
        self._doing = processes.RawValue(CurrentJob)
        self._job_limit_s = job_limit_s
        self.at_hand: dict[int, Task] = {}
        self._died_idle = False
        self._start()

    def _start(self) -> None:
        # A worker inherits the pipes of those started before it, so when this process dies, the
        # youngest sees the end of its own pipe, leaves, and so lets the next one see it.
        self.connection, theirs = self._processes.Pipe()
        self._channel = SharedMemoryChannel(self.connection, self._memory, side=0)
        self._doing.number = NOTHING
        self._process = self._processes.Process(
            target=_serve,
            args=(theirs, self.connection, self._app, self._memory, self._number, self._doing),
            name="fedagent-worker",
        )
        self._forks.call(self._process.start)
        theirs.close()
        self._is_ready = False
        self._watch = JobWatch(
            self._doing, self._process.pid, self._job_limit_s, "runtime.job_limit_s"
        )

    @property
    def capacity(self) -> int:
        """How much work it can have at hand."""
        return self._channel.capacity

    def send(self, task: Task) -> None:
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

    def look(self) -> None:
        """Notice an end that the pipe does not tell of, and a job without one.

        A dead worker's pipe stays open while a process that a client has started holds it.
        """
        if self._process.is_alive():
            task = self.at_hand.get(self._doing.number)
            reason = None if task is None else self._watch.why_ended(_whose(task.work))
        else:
            reason = DIED
        if reason is not None and not self.connection.poll():
            self._replace(reason)

    def _replace(self, reason: str = DIED) -> None:
        """Give an error for what a dead worker was doing; a new one gets the rest of what it had.

        If it was doing nothing, all of it, but only once: to receive one of them may be what kills.
        """
        self._bury()
        lost = self._doing.number if self._doing.number in self.at_hand else None
        if lost is None and self._died_idle:
            lost = min(self.at_hand)
        self._died_idle = lost is None
        if lost is not None:
            task = self.at_hand.pop(lost)
            task.future.set_result(crash_of(task.work, reason))
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
        kill_group(self._process.pid)
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


def _whose(work: Work) -> str:
    items = [work] if isinstance(work, WorkItem) else work
    return f"node {', '.join(str(item.node_id) for item in items[:_MOST_NODES])}"


def _serve(
    connection: Connection,
    ours: Connection,
    app_reference: object,
    memory: mmap.mmap | None,
    number: int,
    doing: CurrentJob,
) -> None:
    end_with_parent()
    lead_group()
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
            _, number, work = heapq.heappop(at_hand)
            doing.begin(number)
            channel.send((number, run_work(app, work, is_own=True)))
