"""A real fleet in one process: wall clock, no threads, and updates that count themselves."""

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedagent import keys
from fedagent._flower import DRIVER_NODE_ID, Run, empty_run, identify_process, set_message_id

NODES = (100, 101, 102, 103)


class LocalGrid(Grid):
    """Its clients work when they are asked for replies, which come in any order, some at a time.

    Ids of messages are new in every process, as those of every run of Flower's are.

    Parameters
    ----------
    train : message -> reply.
    nodes : ids of those that are connected; a list may grow.
    seed : of the order in which replies come.
    """

    def __init__(
        self, train: Callable[[Message], Message], nodes: Sequence[int] = NODES, seed: int = 0
    ) -> None:
        identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
        self._train, self._nodes = train, nodes
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._pending: dict[str, Message] = {}

    def set_run(self, run: Run) -> NoReturn:
        """Refuse: there is one."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """A run without an app."""
        return empty_run(1)

    def create_message(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: Flower deprecates it."""
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        """Return the nodes."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Keep messages until they are asked for."""
        ids = []
        for message in messages:
            ids.append(f"{os.getpid()}-{next(self._numbers)}")
            set_message_id(message, ids[-1])
            self._pending[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to some of the messages, or to none."""
        there = sorted(i for i in message_ids if i in self._pending)
        chosen = self._random.sample(there, self._random.randint(0, len(there)))
        return [self._train(self._pending.pop(i)) for i in chosen]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> NoReturn:
        """Refuse: an asynchronous strategy never waits for a batch."""
        raise NotImplementedError


class Counting:
    """A client that adds 1 to an element which no other job touches: how often it was applied.

    Parameters
    ----------
    folder : where the tokens of all jobs are kept, over all processes of a run: one a line, that
        of element n on the n-th.
    size : elements of the model, one for a job.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._file, self._size = folder / "jobs", size
        self._lock = threading.Lock()  # replies may be asked for by several threads

    def initial(self) -> ArrayRecord:
        """Return the model that holds no update."""
        return ArrayRecord([np.zeros(self._size, np.float32)])

    def __call__(self, message: Message) -> Message:
        """Do a job."""
        with self._lock:
            number = len(self._file.read_text().split()) if self._file.exists() else 0
            with self._file.open("a") as file:
                file.write(f"{message.content['config'][keys.TOKEN]}\n")
        counts = message.content["arrays"].to_numpy_ndarrays()[0].copy()
        counts[number] += 1
        metrics = MetricRecord({"num-examples": 1, "job": number})
        content = RecordDict({"arrays": ArrayRecord([counts]), "metrics": metrics})
        return Message(content, reply_to=message)
