"""The warm process: everything is imported before a task comes.

Started by `fedagent.deployment.warm_node.executor`, with the file descriptor of a pipe on which
tasks come. It forks for every task, so that each has a process of its own, as under Flower. What a
task has imported, the app and whatever that imports while it works, is imported here too, and the
app may prepare what all its tasks need: so the next task finds it.
"""

import argparse
import gc
import importlib
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn, Protocol, cast, runtime_checkable

import numpy as np
import torch
from flwr.app import Context

from fedagent import _flower
from fedagent._flower import AppBundle
from fedagent.deployment.warm_node.programs import TaskBegun
from fedagent.process.containment import safe_traceback
from fedagent.process.forking import ForkingThread, end_with_parent, kill_group, lead_group

_LOOK_EVERY_S = 1.0  # at tasks whose pipes are open
_END_S = 0.01  # between two looks at one whose pipe is closed: it ends now, as a rule


@runtime_checkable
class WarmsUp(Protocol):
    """A ClientApp that can do ahead what all of a node's tasks need, such as reading data."""

    def warm_up(self, context: Context) -> None:
        """Prepare; called once per run and node, with the node's Context without its state."""


_GENERATORS: dict[str, tuple[Callable[[], bytes], Callable[[], object]]] = {
    "random": (lambda: repr(random.getstate()).encode(), random.seed),
    "numpy": (lambda: repr(np.random.get_state(legacy=False)).encode(), np.random.seed),
    "torch": (lambda: torch.get_rng_state().numpy().tobytes(), torch.seed),
}


class Randomness:
    """The global generators, which every copy of this process would continue alike.

    A task draws anew from each, as in a process that has just started, unless its app has seeded
    it when it was imported: that every copy inherits.
    """

    def __init__(self) -> None:
        self._unseeded = set(_GENERATORS)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Notice which generators an import seeds."""
        before = {name: state() for name, (state, _) in _GENERATORS.items()}
        yield
        self._unseeded -= {name for name in before if _GENERATORS[name][0]() != before[name]}

    def renew(self) -> None:
        """Seed what no import has seeded from the system's entropy."""
        for name in self._unseeded:
            _GENERATORS[name][1]()


@dataclass
class ForkedTask:
    """A task that is being done in a process of its own.

    Attributes
    ----------
    bundle : the app that it is for, as soon as that is known.
    modules : what it has imported; None unless it has come to its end.
    is_silent : whether it has closed its pipe.
    """

    task_id: int
    pid: int
    bundle: AppBundle | None = None
    modules: list[str] | None = None
    is_silent: bool = False


class WarmProcessServer:
    """Receives tasks, does each in a forked process, and says when they have begun and ended.

    Whatever a task has started ends with it.

    Parameters
    ----------
    requests : pipe on which tasks come.
    undo : called in each copy, before its task, to undo what is for this process only.
    """

    def __init__(self, requests: Connection, undo: Callable[[], None] = lambda: None) -> None:
        self._requests, self._undo = requests, undo
        self._running: dict[Connection, ForkedTask] = {}
        self._loaded: AppBundle | None = None
        self._randomness = Randomness()
        self._forks = ForkingThread()
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)  # this process prepares, and its copies compute

    def serve(self) -> None:
        """Do tasks until the pipe is closed."""
        while True:
            talking = [pipe for pipe, task in self._running.items() if not task.is_silent]
            timeout_s = None
            if self._running:
                timeout_s = _LOOK_EVERY_S if len(talking) == len(self._running) else _END_S
            for pipe in wait([self._requests, *talking], timeout_s):
                if pipe is self._requests:
                    try:
                        spec = self._requests.recv()
                    except EOFError:
                        return
                    self._fork(spec)
                else:
                    self._hear(cast(Connection, pipe))
            self._look()

    def _fork(self, spec: Any) -> None:
        gc.freeze()  # a collection in the copy would touch, and so copy, all that is shared
        reader, writer = Pipe(duplex=False)
        pid = self._forks.call(lambda: os.fork() or self._be_task(spec, reader, writer))
        writer.close()
        self._running[reader] = ForkedTask(spec.task_id, pid)
        self._requests.send(TaskBegun(spec.task_id, pid))

    def _be_task(self, spec: Any, reader: Connection, writer: Connection) -> NoReturn:
        """Do a task in this copy, and end it."""
        status = 1
        try:
            end_with_parent()
            lead_group()
            reader.close()
            self._requests.close()
            self._undo()
            for sign in (signal.SIGINT, signal.SIGTERM):
                signal.signal(sign, signal.SIG_DFL)
            torch.set_num_threads(self._threads)
            self._randomness.renew()
            known = set(sys.modules)
            status = _flower.run_client_app(spec, self._loaded, writer.send, ends=True)
            if status != _flower.UNANSWERED:
                writer.send([name for name in sys.modules if name not in known])
        except BaseException as error:  # nothing of this process may run on in the copy
            with suppress(BaseException):
                print(safe_traceback(error), file=sys.stderr)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(BaseException):  # the client has closed it, or put its own there
                    stream.flush()
            os._exit(status)

    def _hear(self, reader: Connection) -> None:
        task = self._running[reader]
        task.is_silent = not _take_in(reader, task)  # it has ended, or closed what it inherited

    def _look(self) -> None:
        """Notice which tasks have ended: what they have started may hold their pipes open."""
        for reader, task in list(self._running.items()):
            ended, status = os.waitpid(task.pid, os.WNOHANG)
            if ended:
                while reader.poll() and _take_in(reader, task):
                    pass
                self._bury(reader, status)

    def _bury(self, reader: Connection, status: int) -> None:
        task = self._running.pop(reader)
        kill_group(task.pid)
        reader.close()
        self._requests.send((task.task_id, task.modules is None))
        if status == 0 and task.bundle is not None:
            self._load(task.bundle)
            import_all(task.modules or [])

    def _load(self, bundle: AppBundle) -> None:
        """Import the app, which its last task has installed, for those to come."""
        if bundle != self._loaded:
            self._loaded = bundle  # once, whatever comes of it
            prepare(bundle, self._randomness)


def _take_in(reader: Connection, task: ForkedTask) -> bool:
    """Note what a task says; return False if it will say no more."""
    try:
        said = reader.recv()
    except EOFError:
        return False
    if isinstance(said, AppBundle):
        task.bundle = said
    else:
        task.modules = said
    return True


def import_all(modules: Sequence[str]) -> None:
    """Import what a task has imported: the first optimizer alone brings thousands of modules."""
    for name in modules:
        if name not in sys.modules:
            with suppress(Exception):  # a name that only that process knew: no loss
                importlib.import_module(name)


def prepare(bundle: AppBundle, randomness: Randomness) -> None:
    """Import an app and let it warm up; what goes wrong here every task does for itself."""
    try:
        with randomness.importing():
            app = _flower.load_installed_app(bundle)
        if isinstance(app, WarmsUp):
            app.warm_up(bundle.context)
    except BaseException as error:  # SystemExit, too, is the app's: this process goes on
        print(
            "fedagent node: the app could not be prepared ahead; every task will do it:\n"
            f"{safe_traceback(error)}",
            file=sys.stderr,
        )


def reuse(requests: Connection) -> None:
    """Do tasks one after the other in this process, until the pipe is closed."""
    while True:
        try:
            spec = requests.recv()
        except EOFError:
            return
        requests.send(TaskBegun(spec.task_id, os.getpid()))
        status = _flower.UNANSWERED
        try:
            status = _flower.run_client_app(spec, None, lambda _: None, ends=False)
        except Exception as error:  # what Flower does after the reply; this process goes on
            print(safe_traceback(error), file=sys.stderr)
        requests.send((spec.task_id, status == _flower.UNANSWERED))


def main(arguments: Sequence[str]) -> None:
    """Import what was asked for, then serve."""
    parser = argparse.ArgumentParser("fedagent.deployment.warm_node.server")
    parser.add_argument("requests", type=int)
    parser.add_argument("--executor", required=True)
    parser.add_argument("--preload", action="append", default=[])
    ours = parser.parse_args(arguments)
    requests = Connection(ours.requests)
    end_with_parent()
    lead_group()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the SuperNode's end ends this process
    sys.argv = ["flwr-clientapp"]  # what a ClientApp finds there under Flower, too
    with ExitStack() as setup:
        setup.enter_context(cuda_left_alone())
        _flower.import_client_runtime()
        for module in ours.preload:
            try:
                importlib.import_module(module)
            except ImportError as error:
                print(f"fedagent node: --preload={module}: {error}", file=sys.stderr)
        is_reused = ours.executor == "auto" and torch.cuda.is_available()
        if not (is_reused or ours.executor == "reuse"):
            return WarmProcessServer(requests, setup.close).serve()
    return reuse(requests)


@contextmanager
def cuda_left_alone() -> Iterator[None]:
    """Let PyTorch ask the driver whether there is CUDA, and not CUDA: a copy could not use it."""
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name, None)
