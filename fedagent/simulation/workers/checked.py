"""Whether what a client answers depends on its message, Context and seed, and on nothing else.

That is what "the same bytes for any number of workers" rests on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Error, RecordDict

from fedagent import keys
from fedagent.arrays import NDArray
from fedagent.formatting import printable
from fedagent.simulation.workers.base import Executor, Pending
from fedagent.simulation.workers.work import ClientResult, WorkItem

logger = logging.getLogger("flwr.fedagent")

T = TypeVar("T")

_KEEPS_SOMETHING = (
    "two new processes agree, so the app keeps something in its process from one message to the "
    "next: a variable of a module, a model, an iterator over its data. Make it anew for every "
    "message, or keep it in context.state"
)
_DRAWS_BY_ITSELF = (
    "two new processes do not agree either, so the app takes something from outside: a generator "
    "that it seeds itself, a clock, a file, the order of its threads. Draw from random, "
    "numpy.random or torch, which are seeded for every job"
)


class CheckedExecutor(Executor):
    """Has another executor do the work, and some items once more, each in a process that is new.

    These are the items 2, 4, 8, ... in the order of submission: few, and late enough for their
    process to have done others before. The first that comes out otherwise is told of in a warning:
    which node's, what differs, and why, as far as a third process can tell. Then no more are done
    twice. What is returned is always the first answer.

    Parameters
    ----------
    executor : what does the work, not in this process.
    afresh : makes an executor whose process has not worked yet.
    """

    def __init__(self, executor: Executor, afresh: Callable[[], Executor]) -> None:
        self._executor, self._afresh = executor, afresh
        self._num_items = self._num_checked = 0
        self._is_same = True
        self._to_check: dict[Pending[Any], WorkItem] = {}

    def submit(self, item: WorkItem, due_s: float = 0.0) -> Pending[ClientResult]:
        """Hand the item on."""
        future = self._executor.submit(item, due_s)
        self._num_items += 1
        if self._num_items.bit_count() == 1 and self._num_items > 1:
            self._to_check[future] = item
        return future

    def submit_all(
        self, items: Sequence[WorkItem], due_s: float = 0.0
    ) -> Pending[list[ClientResult]]:
        """Hand the items on; batches are not done twice."""
        return self._executor.submit_all(items, due_s)

    def result(self, future: Pending[T]) -> T:
        """Return the answer, after a look at the same item's in another process."""
        result = self._executor.result(future)
        item = self._to_check.pop(future, None)
        if item is not None and self._is_same:
            self._check(item, cast(ClientResult, result))
        return result

    def close(self) -> None:
        """Close the executor behind, and say so if all was as it should be."""
        self._executor.close()
        if self._is_same and self._num_checked:
            logger.info("runtime.check: %d jobs done twice gave the same bytes.", self._num_checked)

    def _check(self, item: WorkItem, result: ClientResult) -> None:
        self._num_checked += 1
        again = self._once_more(item)
        if (difference := first_difference(result, again)) is None:
            return
        self._is_same = False
        agree = first_difference(again, self._once_more(item)) is None
        logger.warning(
            "runtime.check: a job of node %d (partition %s) came out otherwise in a new process: "
            "%s. Likely cause: %s. As it is, another number of workers gives other bytes.",
            item.node_id,
            item.node_config.get("partition-id", "?"),
            printable(difference),
            _KEEPS_SOMETHING if agree else _DRAWS_BY_ITSELF,
        )

    def _once_more(self, item: WorkItem) -> ClientResult:
        with self._afresh() as executor:
            return executor.result(executor.submit(item))


def first_difference(one: ClientResult, other: ClientResult) -> str | None:
    """Say where two results of one item differ first; None if they are the same, byte by byte."""
    return next(_differences(one, other), None)


def _differences(one: ClientResult, other: ClientResult) -> Iterator[str]:
    mine, others = one.content, other.content
    if isinstance(mine, RecordDict) and isinstance(others, RecordDict):
        yield from _between_records(mine, others, "")
    elif _said(mine) != _said(others):
        yield f"{_said(mine)} against {_said(others)}"
    yield from _between_records(one.state, other.state, "the Context's state, ")


def _said(content: RecordDict | Error) -> str:
    return f"error: {content.reason}" if isinstance(content, Error) else "a reply"


def _between_records(mine: RecordDict, others: RecordDict, where: str) -> Iterator[str]:
    yield from _between_names(mine, others, f"{where}records")
    for name in [name for name in mine if name in others]:
        a, b = mine[name], others[name]
        yield from _between_names(a, b, f"{where}entries of {name!r}")
        is_drawn = name in (keys.SEALED, keys.KEPT)  # but for an update, which is computed
        for key in [key for key in a if key in b and (key == keys.CHANGE or not is_drawn)]:
            if isinstance(a, ArrayRecord) and isinstance(b, ArrayRecord):
                yield from _between_arrays(a[key], b[key], f"{where}array {key!r}")
            elif repr(a[key]) != repr(b[key]):  # by which NaN is NaN
                yield f"{where}{key!r} in {name!r} is {a[key]!r} against {b[key]!r}"


def _between_names(mine: Mapping[str, Any], others: Mapping[str, Any], what: str) -> Iterator[str]:
    if list(mine) != list(others):
        yield f"{what}: {list(mine)} against {list(others)}"


def _between_arrays(mine: Array, others: Array, what: str) -> Iterator[str]:
    if mine.data == others.data:
        return
    yield f"{what} differs{_first_element(mine, others)}"


def _first_element(mine: Array, others: Array) -> str:
    with suppress(ValueError, TypeError):  # what is no array of numbers differs as it is
        a, b = mine.numpy(), others.numpy()
        if a.shape != b.shape or a.dtype != b.dtype:
            return f": {a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
        is_other = (_bytes_of(a) != _bytes_of(b)).any(axis=1)
        if is_other.any():
            place = int(is_other.argmax())
            index = [int(i) for i in np.unravel_index(place, a.shape)]
            values = f"{a.flat[place]!s} against {b.flat[place]!s}"
            return f" first at {index}: {values} ({is_other.sum()} of {is_other.size} differ)"
    return " in its bytes"


def _bytes_of(array: NDArray) -> NDArray:
    """Return (elements, bytes), by which NaN is NaN and -0.0 is not 0.0."""
    return np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, -1)
