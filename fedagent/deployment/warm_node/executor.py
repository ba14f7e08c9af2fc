"""The program that is Flower's SuperExec with a warm executor.

Started by ``fedagent node``, with the file descriptor of a pipe to the SuperNode and the flags of
flower-superexec. See `fedagent.deployment.warm_node.node`.
"""

import argparse
import subprocess
import time
from collections import OrderedDict
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, cast

from fedagent import _flower
from fedagent.deployment.warm_node.programs import start_with

_MOST_APPS = 2  # that are kept warm: a node works for one run at a time, hardly ever for two


class WarmProcessHandle:
    """A process with everything imported, and the tasks it was given."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.requests, end = Pipe()
        self._process: subprocess.Popen[bytes] = start_with(
            "fedagent.deployment.warm_node.server", end, *arguments
        )
        self.tasks: set[int] = set()

    def give(self, spec: Any) -> None:
        """Hand over a task; raises OSError if the process is gone."""
        self.requests.send(spec)
        self.tasks.add(spec.task_id)

    def end(self) -> None:
        """End the process; tasks that it has forked run to their end."""
        self.requests.close()
        self._process.terminate()
        self._process.wait()


class WarmExecutor:
    """Flower's executor protocol, with one warm process per app.

    Parameters
    ----------
    link : pipe to the SuperNode: (task id, died) for every task that ended.
    arguments : of `fedagent.deployment.warm_node.server`.
    """

    def __init__(self, link: Connection, arguments: Sequence[str]) -> None:
        self._link = link
        self._arguments = arguments
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
        try:
            self._process_for(spec.fab_hash).give(spec)
        except OSError:  # it died since its last task
            self._bury(spec.fab_hash)
            self._process_for(spec.fab_hash).give(spec)
        return _flower.launch_accepted()

    def reconcile(self) -> None:
        """Nothing to maintain between tasks."""

    def close(self) -> None:
        """End all processes."""
        for process in self._warm.values():
            process.end()
        self._warm.clear()

    def pause(self, seconds: float) -> None:
        """Wait until the SuperNode has a task; meanwhile pass on which have ended."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            by_pipe = {process.requests: key for key, process in self._warm.items()}
            ready = wait([self._link, *by_pipe], left_s)
            for pipe in ready:
                if pipe is not self._link:
                    self._hear(by_pipe[cast(Connection, pipe)])
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
            _, oldest = self._warm.popitem(last=False)
            oldest.end()
        return self._warm[fab_hash]

    def _hear(self, key: str | None) -> None:
        process = self._warm[key]
        try:
            task_id, died = cast(tuple[int, bool], process.requests.recv())
        except (EOFError, OSError):
            self._bury(key)
            return
        process.tasks.discard(task_id)
        self._link.send((task_id, died))

    def _bury(self, key: str | None) -> None:
        process = self._warm.pop(key)
        process.end()
        for task_id in process.tasks:
            self._link.send((task_id, True))


def main(arguments: Sequence[str]) -> None:
    """Run the SuperExec until the SuperNode ends."""
    parser = argparse.ArgumentParser("fedagent.deployment.warm_node.executor", allow_abbrev=False)
    parser.add_argument("link", type=int)
    parser.add_argument("--executor", required=True)
    parser.add_argument("--preload", action="append", default=[])
    ours, superexec = parser.parse_known_args(arguments)
    link = Connection(ours.link)
    warm = [f"--executor={ours.executor}", *(f"--preload={module}" for module in ours.preload)]
    executor = WarmExecutor(link, warm)
    _flower.run_superexec(superexec, executor, executor.pause)
