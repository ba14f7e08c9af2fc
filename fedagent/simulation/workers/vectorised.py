"""Clients that are trained together: which, and whether it is worth it."""

import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import pairwise
from typing import Any, TypeVar

from flwr.app import Error

from fedagent._flower import ErrorCode
from fedagent.simulation.workers.inline import Executor
from fedagent.simulation.workers.work import ClientResult, WorkItem

logger = logging.getLogger("flwr.fedagent")

T = TypeVar("T")

_TRIAL_SIZE = 4  # items that wait at the same time, at least, for a trial to say something


class VectorisedExecutor(Executor):
    """Gives another executor whatever waits at the same time in groups, to be done as one batch.

    Nothing begins before one of the answers is asked for. Then all that was submitted until now is
    dealt to groups of almost equal size, in the order of submission. So the groups, and the bytes
    that come out, depend on neither the number of workers nor the machine, unless ``mode="auto"``,
    which tries both ways with the first items and keeps the faster one.

    If a worker dies with a group, its items are done once more, one by one.

    Parameters
    ----------
    executor : who does the work.
    mode : "always", or "auto".
    size : items per group, >= 2, at most.
    """

    def __init__(self, executor: Executor, mode: str = "always", size: int = 32) -> None:
        self._executor, self._size = executor, size
        self._is_grouping = None if mode == "auto" else True
        self._held: dict[Future[Any], WorkItem] = {}
        self._groups: dict[Future[Any], _Group] = {}

    def submit(self, item: WorkItem, due_s: float = 0.0) -> "Future[ClientResult]":
        """Hold the item until somebody asks for an answer."""
        if self._is_grouping is False:
            return self._executor.submit(item, due_s)
        future: Future[ClientResult] = Future()
        self._held[future] = item
        return future

    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> "Future[list[ClientResult]]":
        """Hand on what is a group already."""
        return self._executor.submit_all(items, due_s)

    def result(self, future: "Future[T]") -> T:
        """Return an answer; the first call after items were submitted begins all of them."""
        if future in self._held:
            self._begin()
        if future not in self._groups:
            return self._executor.result(future)
        group = self._groups.pop(future)
        group.finish()
        return future.result()

    def close(self) -> None:
        """Close the executor behind; what nobody asked for is dropped."""
        self._executor.close()

    def _begin(self) -> None:
        held, self._held = self._held, {}
        if self._is_grouping is None and len(held) >= _TRIAL_SIZE:
            self._is_grouping = self._try_both_ways(list(held.values()))
        is_grouping = self._is_grouping is not False
        for futures in _dealt(list(held), self._size if is_grouping else 1):
            group = _Group(self._executor, futures, [held[f] for f in futures])
            self._groups.update(dict.fromkeys(futures, group))

    def _try_both_ways(self, items: Sequence[WorkItem]) -> bool:
        self._seconds(items, self._size)  # imports, and whatever else only the first pays for
        together_s, alone_s = self._seconds(items, self._size), self._seconds(items, 1)
        is_faster = together_s < alone_s
        logger.info(
            "Vectorise: %d clients took %.3g s as one batch and %.3g s one by one; from now on %s.",
            len(items),
            together_s,
            alone_s,
            "as one batch" if is_faster else "one by one",
        )
        return is_faster

    def _seconds(self, items: Sequence[WorkItem], size: int) -> float:
        begun_s = time.perf_counter()
        groups = [
            _Group(self._executor, [Future() for _ in part], part) for part in _dealt(items, size)
        ]
        for group in groups:
            group.finish()
        return time.perf_counter() - begun_s


class _Group:
    """Items under way together."""

    def __init__(
        self,
        executor: Executor,
        futures: "Sequence[Future[ClientResult]]",
        items: Sequence[WorkItem],
    ) -> None:
        self._executor, self._futures, self._items = executor, futures, items
        self._under_way = executor.submit_all(items)

    def finish(self) -> None:
        """Wait for all answers, and give them to the futures."""
        if self._futures[0].done():
            return
        answers = self._executor.result(self._under_way)
        if len(self._items) > 1 and all(_is_crash(answer) for answer in answers):
            again = [self._executor.submit(item) for item in self._items]
            answers = [self._executor.result(future) for future in again]
        for future, answer in zip(self._futures, answers, strict=True):
            future.set_result(answer)


def _is_crash(answer: ClientResult) -> bool:
    content = answer.content
    return isinstance(content, Error) and content.code == ErrorCode.CLIENT_APP_CRASHED


def _dealt(things: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut into the fewest parts of at most `size`, which differ by one at most."""
    count = math.ceil(len(things) / size)
    bounds = [len(things) * i // count for i in range(count + 1)]
    return [things[a:b] for a, b in pairwise(bounds)]
