"""The program that is Flower's SuperExec with a warm executor.

Started by ``fedagent node``, with the file descriptor of a pipe to the SuperNode and the flags of
flower-superexec. See `fedagent.deployment.warm_node.node`.
"""

import argparse
import logging
import subprocess
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, cast

from fedagent import _flower
from fedagent.deployment.warm_node.programs import TaskBegun, start_with
from fedagent.process.forking import kill_group
from fedagent.process.watching import CurrentJob, JobWatch

_MOST_APPS = 2  # that are kept warm: a node works for one run at a time, hardly ever for two
_LOOK_EVERY_S = 1.0  # at tasks that do not end
_PATIENCE_S = 2.0  # with a process that was asked to end

logger = logging.getLogger("flwr.fedagent")


class WarmProcessHandle:
    """A process with everything imported, and the tasks it was given."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.requests, end = Pipe()
        self._process: subprocess.Popen[bytes] = start_with(
            "fedagent.deployment.warm_node.server", end, *arguments
        )
        self.process_id = self._process.pid
        self.tasks: set[int] = set()

    @property
    def is_alive(self) -> bool:
        """Whether it is there; what a task has started may hold the pipe of one that is not."""
        return self._process.poll() is None

    def give(self, spec: Any) -> None:
        """Hand over a task; raises OSError if the process is gone."""
        self.requests.send(spec)
        self.tasks.add(spec.task_id)

    def end(self) -> None:
        """End the process and the tasks that it does."""
        self.requests.close()
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):  # a client's code hangs in it, or has stopped it
            self._process.wait(_PATIENCE_S)
        kill_group(self._process.pid)
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class WatchedTask:
    """A task, the process that does it, and how long it may."""

    process_id: int
    watch: JobWatch


class WarmExecutor:
    """Flower's executor protocol, with one warm process per app.

    Parameters
    ----------
    link : pipe to the SuperNode: (task id, died) for every task that ended.
    arguments : of `fedagent.deployment.warm_node.server`.
    job_limit_s : seconds that a task may take; None for as long as it computes, see
        `fedagent.process.watching`.
    """

    def __init__(
        self, link: Connection, arguments: Sequence[str], job_limit_s: float | None = None
    ) -> None:
        self._link = link
        self._arguments = arguments
        self._job_limit_s = job_limit_s
        self._watched: dict[int, WatchedTask] = {}
        self._looked_s = time.monotonic()
        self._warm: OrderedDict[str | None, WarmProcessHandle] = OrderedDict()
        self._warm[None] = WarmProcessHandle(arguments)  # the first app finds everything imported

    def get_eligible_capacity(self, supported_task_types: Any, **_: Any) -> tuple[Any, set[str]]:
        """Take whatever there is: a SuperNode has one task at a time."""
        return supported_task_types, set()

    def wait_for_capacity(self, *_: Any, **__: Any) -> None:
        """Return at once."""

    def launch(self, spec: Any) -> Any:
        """Start a task: a ClientApp's in its warm process, any other as Flower does."""
        if not _flower.is_for_client_app(spec):
            return _flower.launch_cold(spec)
        process = self._process_for(spec.fab_hash)
        try:
            process.give(spec)
        except OSError:  # it died since its last task
            self._bury(spec.fab_hash)
            process = self._process_for(spec.fab_hash)
            process.give(spec)
        # Until the task begins, the process may import for long, but not hang in what it prepares.
        self._watch(spec.task_id, process.process_id, limit_s=None)
        return _flower.launch_accepted()

    def reconcile(self) -> None:
        """Nothing to maintain between tasks."""

    def close(self) -> None:
        """End all processes."""
        for process in self._warm.values():
            process.end()
        self._warm.clear()

    def pause(self, seconds: float) -> None:
        """Wait until the SuperNode has a task; meanwhile pass on which have ended.

        Tasks without an end are ended.
        """
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            by_pipe = {process.requests: key for key, process in self._warm.items()}
            ready = wait([self._link, *by_pipe], min(left_s, _LOOK_EVERY_S))
            for pipe in ready:
                if pipe is not self._link:
                    self._hear(by_pipe[cast(Connection, pipe)])
            if time.monotonic() - self._looked_s >= _LOOK_EVERY_S:
                self._look()
            if self._link in ready:
                try:
                    self._link.recv()
                except EOFError:  # the SuperNode has gone; Flower's monitor ends this process
                    time.sleep(seconds)
                return

    def _process_for(self, fab_hash: str | None) -> WarmProcessHandle:
        if fab_hash not in self._warm:
            spare = self._warm.pop(None, None)
            self._warm[fab_hash] = spare or WarmProcessHandle(self._arguments)
        self._warm.move_to_end(fab_hash)
        while len(self._warm) > _MOST_APPS:
            self._bury(next(iter(self._warm)))
        return self._warm[fab_hash]

    def _hear(self, key: str | None) -> None:
        process = self._warm[key]
        try:
            said = process.requests.recv()
        except (EOFError, OSError):
            self._bury(key)
            return
        if isinstance(said, TaskBegun):
            self._watch(said.task_id, said.process_id, self._job_limit_s)
            return
        task_id, died = cast(tuple[int, bool], said)
        process.tasks.discard(task_id)
        self._end_of(task_id, died)

    def _watch(self, task_id: int, process_id: int, limit_s: float | None) -> None:
        current = CurrentJob()
        current.begin(task_id)
        watch = JobWatch(current, process_id, limit_s, "--job-limit")
        self._watched[task_id] = WatchedTask(process_id, watch)

    def _look(self) -> None:
        """Notice warm processes that have died, and tasks that have no end."""
        self._looked_s = time.monotonic()
        for key, process in list(self._warm.items()):
            if not process.is_alive and not process.requests.poll():
                self._bury(key)
        for task_id, task in self._watched.items():
            if (reason := task.watch.why_ended(f"task {task_id}")) is not None:
                logger.warning("Task %d in process %d: %s", task_id, task.process_id, reason)
                kill_group(task.process_id)

    def _end_of(self, task_id: int, died: bool) -> None:
        self._watched.pop(task_id, None)
        self._link.send((task_id, died))

    def _bury(self, key: str | None) -> None:
        process = self._warm.pop(key)
        process.end()
        for task_id in process.tasks:
            self._end_of(task_id, died=True)


def main(arguments: Sequence[str]) -> None:
    """Run the SuperExec until the SuperNode ends."""
    parser = argparse.ArgumentParser("fedagent.deployment.warm_node.executor", allow_abbrev=False)
    parser.add_argument("link", type=int)
    parser.add_argument("--executor", required=True)
    parser.add_argument("--preload", action="append", default=[])
    parser.add_argument("--job-limit", type=float)
    ours, superexec = parser.parse_known_args(arguments)
    link = Connection(ours.link)
    warm = [f"--executor={ours.executor}", *(f"--preload={module}" for module in ours.preload)]
    executor = WarmExecutor(link, warm, ours.job_limit)
    _flower.run_superexec(superexec, executor, executor.pause)
