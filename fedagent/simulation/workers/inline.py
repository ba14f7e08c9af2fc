"""Clients' work in this process: for tests and tiny models."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from flwr.clientapp import ClientApp

from fedagent.simulation.workers.base import Executor, Work, run_work
from fedagent.simulation.workers.randomness import rng_state_preserved
from fedagent.simulation.workers.work import ClientResult, WorkItem, load_app

T = TypeVar("T")


class Inline(Executor):
    """Works in this process, one item at a time, when its result is asked for."""

    def __init__(self, client_app: ClientApp | str) -> None:
        self._app = cast(ClientApp, load_app(client_app, ClientApp))
        self._waiting: dict[Future[Any], Work] = {}

    def submit(self, item: WorkItem, due_s: float = 0.0) -> "Future[ClientResult]":
        """Remember the item."""
        return self._remember(item)

    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> "Future[list[ClientResult]]":
        """Remember the items."""
        return self._remember(items)

    def result(self, future: "Future[T]") -> T:
        """Do the work now."""
        with rng_state_preserved():
            return cast(T, run_work(self._app, self._waiting.pop(future)))

    def _remember(self, work: Work) -> "Future[Any]":
        future: Future[Any] = Future()
        self._waiting[future] = work
        return future
