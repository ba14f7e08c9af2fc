"""Clients' work in this process: for tests and tiny models."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from flwr.clientapp import ClientApp

from fedagent.simulation.workers.base import Executor, Pending, Work, run_work
from fedagent.simulation.workers.randomness import rng_state_preserved
from fedagent.simulation.workers.work import ClientResult, WorkItem, load_app

T = TypeVar("T")


class Inline(Executor):
    """Works in this process, one item at a time, when its result is asked for."""

    def __init__(self, client_app: ClientApp | str) -> None:
        self._app = cast(ClientApp, load_app(client_app, ClientApp))
        self._waiting: dict[Pending[Any], Work] = {}

    def submit(self, item: WorkItem, due_s: float = 0.0) -> Pending[ClientResult]:
        """Remember the item."""
        return self._remember(item)

    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> Pending[list[ClientResult]]:
        """Remember the items."""
        return self._remember(items)

    def result(self, future: Pending[T]) -> T:
        """Do the work now."""
        with rng_state_preserved():
            return cast(T, run_work(self._app, self._waiting.pop(future)))

    def _remember(self, work: Work) -> Pending[Any]:
        future: Pending[Any] = Pending()
        self._waiting[future] = work
        return future
