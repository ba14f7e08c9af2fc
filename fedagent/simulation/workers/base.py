"""The contract of whatever does the clients' work. The outcome does not depend on it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from flwr.app import Error
from flwr.clientapp import ClientApp

from fedagent._flower import ErrorCode
from fedagent.simulation.workers.work import ClientResult, WorkItem, run_client, run_clients

T = TypeVar("T")

Work = WorkItem | Sequence[WorkItem]


class Pending(Generic[T]):
    """What an item was submitted for: once it has come, a result or what was raised instead.

    A `Future` for one thread, without its locks.
    """

    __slots__ = ("_error", "_is_done", "_result")

    def __init__(self) -> None:
        self._is_done = False
        self._error: Exception | None = None

    def done(self) -> bool:
        """Return whether it has come."""
        return self._is_done

    def result(self) -> T:
        """Return the result that has come, or raise what was raised instead."""
        if self._error is not None:
            raise self._error
        return self._result

    def set_result(self, result: T) -> None:
        """Note the result."""
        self._result, self._is_done = result, True

    def set_exception(self, error: Exception) -> None:
        """Note what was raised instead."""
        self._error, self._is_done = error, True


class Executor(ABC):
    """Does work items in any order, in parallel or not; each result is fetched once.

    ``due_s`` is the virtual time at which a result will be asked for: where not everything can be
    done at once, what is due first goes first.
    """

    @abstractmethod
    def submit(self, item: WorkItem, due_s: float = 0.0) -> Pending[ClientResult]:
        """Take in an item; it may run at any time from now on."""

    @abstractmethod
    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> Pending[list[ClientResult]]:
        """Take in items that one worker does together, see `run_clients`; if it dies, all fail."""

    @abstractmethod
    def result(self, future: Pending[T]) -> T:
        """Return what was submitted for, waiting for that only."""

    def close(self) -> None:
        """Give back whatever the executor holds; items not fetched are dropped."""

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def run_work(app: ClientApp, work: Work, is_own: bool = False) -> ClientResult | list[ClientResult]:
    """Do an item, or several as one; see `run_client`."""
    if isinstance(work, WorkItem):
        return run_client(app, work, is_own)
    return run_clients(app, work, is_own)


DIED = "the worker process died (out of memory, or a crash in native code)"


def crash_of(work: Work, reason: str = DIED) -> ClientResult | list[ClientResult]:
    """Return the result of work whose process has ended: an error, and the state as it was."""
    if isinstance(work, WorkItem):
        return ClientResult(Error(ErrorCode.CLIENT_APP_CRASHED, reason), work.state)
    return [ClientResult(Error(ErrorCode.CLIENT_APP_CRASHED, reason), item.state) for item in work]
