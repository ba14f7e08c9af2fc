"""One mutant before its tests, in a fork of a process that has imported what takes long.

The parent imports neither fedagent nor the tests: the fork does, and finds the mistake in place of
the file, wherever it imports it from.
"""

import contextlib
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

import pytest

from benchmarks.mutation.mutants import Mutant
from benchmarks.mutation.touch import QUIET, Touches

SLOW_IMPORTS = (
    "torch.func", "flwr.app", "flwr.clientapp", "flwr.serverapp.strategy", "flwr.simulation",
    "hypothesis", "networkx", "safetensors.torch", "hydra", "omegaconf",
)  # fmt: skip
_FORK = multiprocessing.get_context("fork")
_PATIENCE_S, _PATIENCE = 20.0, 10.0  # a test may take so much longer than it took
_MOST_BYTES = 6 << 30  # what an endless list may take

Outcome = Literal["killed", "timed out", "survived", "untested", "cannot be imported"]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant; `by` is the first test that failed."""

    mutant: Mutant
    outcome: Outcome
    by: str = ""


class _Mistake(SourceFileLoader, MetaPathFinder):
    """Finds and loads one module with a mistake in it."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(Path(mutant.path).resolve()))
        self._code = compile(mutant.code, self.path, "exec")

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Answer for the one module."""
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name: str) -> types.CodeType:
        """Return the code with the mistake."""
        return self._code


class _Selection:
    """The tests to run, in order; as a plugin of pytest it ends the process at one that hangs."""

    def __init__(self, tests: Sequence[str], seconds: dict[str, float]) -> None:
        self._order = {test: n for n, test in enumerate(tests)}
        self._seconds = seconds
        self.failed = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._order]
        items[:] = sorted(chosen, key=lambda item: self._order[item.nodeid])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        limit_s = _PATIENCE_S + _PATIENCE * self._seconds[item.nodeid]
        signal.setitimer(signal.ITIMER_REAL, limit_s)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid


def _try(mutant: Mutant, touches: Touches, answer: Connection) -> None:
    """Plant the mistake, run the tests, send a verdict; a signal or a crash sends none."""
    os.setsid()  # what the tests leave behind ends with the trial
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    signal.setitimer(signal.ITIMER_REAL, 3 * _PATIENCE_S)
    sys.meta_path.insert(0, _Mistake(mutant))
    try:
        importlib.import_module(mutant.module)
    except Exception as error:  # the mistake's own, whatever it is
        answer.send(Verdict(mutant, "cannot be imported", repr(error)))
        return
    tests = touches.tests(mutant.path, mutant.line)
    selection = _Selection(tests, touches.seconds)
    files = sorted({test.partition("::")[0] for test in tests})
    failed = pytest.main([*QUIET, "-x", "-p", "no:randomly", *files], plugins=[selection])
    outcome: Outcome = "killed" if failed else "survived"
    answer.send(Verdict(mutant, outcome, selection.failed or ("collection" if failed else "")))


def run_all(mutants: Sequence[Mutant], touches: Touches, jobs: int) -> Iterator[Verdict]:
    """Yield a verdict on every mutant, as they come, with `jobs` at a time."""
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    waiting = iter(mutants)
    at_work: dict[int, tuple[Mutant, Connection, multiprocessing.process.BaseProcess]] = {}
    while True:
        while len(at_work) < jobs and (mutant := next(waiting, None)) is not None:
            if not touches.tests(mutant.path, mutant.line):
                yield Verdict(mutant, "untested")
                continue
            answer, theirs = _FORK.Pipe(duplex=False)
            process = _FORK.Process(target=_try, args=(mutant, touches, theirs))
            process.start()
            theirs.close()
            at_work[process.sentinel] = (mutant, answer, process)
        if not at_work:
            return
        for sentinel in wait(list(at_work)):
            assert isinstance(sentinel, int)
            yield _verdict(*at_work.pop(sentinel))


def _verdict(
    mutant: Mutant, answer: Connection, process: multiprocessing.process.BaseProcess
) -> Verdict:
    """Return what a process that has ended has found."""
    process.join()
    with contextlib.suppress(ProcessLookupError):  # it left nothing behind
        os.killpg(process.pid or 0, signal.SIGKILL)
    with answer, contextlib.suppress(EOFError):  # it ended before it could say anything
        if answer.poll():
            found = answer.recv()
            assert isinstance(found, Verdict)
            return found
    if process.exitcode == -signal.SIGALRM:
        return Verdict(mutant, "timed out")
    return Verdict(mutant, "killed", f"exit code {process.exitcode}")


def in_a_fork(target: Callable[[], None]) -> None:
    """Call `target` in a fork, so that this process has imported nothing of what is mutated.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    process = _FORK.Process(target=target)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError("The process failed; the reason is above.")
