"""Clients that are trained together: which, and whether it is worth it."""

import logging
import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar

from flwr.app import Error

from fedagent._flower import ErrorCode
from fedagent.simulation.workers.base import Executor, Pending
from fedagent.simulation.workers.work import ClientResult, WorkItem

logger = logging.getLogger("flwr.fedagent")

T = TypeVar("T")

Mode = Literal["always", "auto"]

_TRIAL_SIZE = 4  # items that wait at the same time, at least, for a trial to say something
_TRIALS = (True, False, True, False)  # as one batch, one by one; the second of each counts


class VectorisedExecutor(Executor):
    """Gives another executor whatever waits at the same time in groups, to be done as one batch.

    Nothing begins before one of the results is asked for. Then all that was submitted until now is
    dealt to groups of almost equal size, in the order of submission. So the groups, and the bytes
    that come out, depend on neither the number of workers nor the machine, unless ``mode="auto"``,
    which does the first batches in turn both ways and keeps the faster one. Every item is done once
    and its result kept, also in a trial: a client may count its jobs in its Context.

    If a worker dies with a group, its items are done once more, one by one, from the state that
    they were submitted with.

    Parameters
    ----------
    executor : what does the work.
    mode : "always", or "auto".
    size : items per group, >= 2, at most.
    """

    def __init__(self, executor: Executor, mode: Mode = "always", size: int = 32) -> None:
        self._executor, self._size = executor, size
        self._is_grouping = True
        self._trials = list(_TRIALS) if mode == "auto" else []
        self._seconds: dict[bool, float] = {}
        self._held: dict[Pending[Any], WorkItem] = {}
        self._groups: dict[Pending[Any], _Group] = {}

    def submit(self, item: WorkItem, due_s: float = 0.0) -> Pending[ClientResult]:
        """Hold the item until somebody asks for a result."""
        if not self._is_grouping and not self._trials:
            return self._executor.submit(item, due_s)
        future: Pending[ClientResult] = Pending()
        self._held[future] = item
        return future

    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> Pending[list[ClientResult]]:
        """Hand on what is a group already."""
        return self._executor.submit_all(items, due_s)

    def result(self, future: Pending[T]) -> T:
        """Return a result; the first call after items were submitted begins all of them."""
        if future in self._held:
            self._begin()
        if future not in self._groups:
            return self._executor.result(future)
        group = self._groups.pop(future)
        group.finish()
        return future.result()

    def close(self) -> None:
        """Close the executor behind; what was not fetched is dropped."""
        self._executor.close()

    def _begin(self) -> None:
        held, self._held = self._held, {}
        if self._trials and len(held) >= _TRIAL_SIZE:
            self._try(held)
        else:
            self._deal(held, self._is_grouping)

    def _deal(self, held: dict[Pending[Any], WorkItem], as_one_batch: bool) -> "list[_Group]":
        dealt = _dealt(list(held), self._size if as_one_batch else 1)
        groups = [_Group(self._executor, futures, [held[f] for f in futures]) for futures in dealt]
        for group, futures in zip(groups, dealt, strict=True):
            self._groups.update(dict.fromkeys(futures, group))
        return groups

    def _try(self, held: dict[Pending[Any], WorkItem]) -> None:
        """Do a batch in the way whose turn it is, and note the time; after the last one decide.

        The first batch of each way pays for imports and the like; the second one's time stays.
        """
        way, begun_s = self._trials.pop(0), time.perf_counter()
        for group in self._deal(held, way):
            group.finish()
        self._seconds[way] = (time.perf_counter() - begun_s) / len(held)
        if self._trials:
            return
        self._is_grouping = self._seconds[True] < self._seconds[False]
        logger.info(
            "Vectorise: a client took %.3g s in one batch and %.3g s alone; from now on %s.",
            self._seconds[True],
            self._seconds[False],
            "as one batch" if self._is_grouping else "one by one",
        )


class _Group:
    """Items under way together."""

    def __init__(
        self,
        executor: Executor,
        futures: Sequence[Pending[ClientResult]],
        items: Sequence[WorkItem],
    ) -> None:
        self._executor, self._futures, self._items = executor, futures, items
        self._under_way = executor.submit_all(items)

    def finish(self) -> None:
        """Wait for all results, and give them to the futures."""
        if self._futures[0].done():
            return
        results = self._executor.result(self._under_way)
        if len(self._items) > 1 and all(_is_crash(result) for result in results):
            again = [self._executor.submit(item) for item in self._items]
            results = [self._executor.result(future) for future in again]
        for future, result in zip(self._futures, results, strict=True):
            future.set_result(result)


def _is_crash(result: ClientResult) -> bool:
    content = result.content
    return isinstance(content, Error) and content.code == ErrorCode.CLIENT_APP_CRASHED


def _dealt(things: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut into the fewest parts of at most `size`, which differ by one at most."""
    count = math.ceil(len(things) / size)
    bounds = [len(things) * i // count for i in range(count + 1)]
    return [things[a:b] for a, b in pairwise(bounds)]
