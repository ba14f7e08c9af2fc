"""Saving a run's state between two events, and going on from it.

The loop is one thread. Between two of its turns nothing is half done: what is under way is in the
grid's queue, in the ledger or in the buffer. There one snapshot of all that the run reaches is the
run, and what follows is decided by it alone. So what a simulated run does after a checkpoint it
does again, bit for bit, when it is resumed: nothing is lost, and nothing happens twice.

A real fleet does nothing again. What comes from it is therefore logged before it counts:

    pull -> log, fsync -> apply -> publish

and a run that is resumed goes through the log of what came after its checkpoint.

The snapshot is taken between two turns. A thread writes it while the loop goes on, into the next
log already; the earlier checkpoint and all logs since stay until the disk has the new one.
"""

import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Message

from fedagent.callbacks import Callback
from fedagent.errors import CheckpointError
from fedagent.journal import Checkpoints, Lock, Log, NotNow, capture, restore
from fedagent.journal.kinds import Path as Way
from fedagent.privacy.secure import SumEnd
from fedagent.statistics import Statistics
from fedagent.update import Dispatch

logger = logging.getLogger("flwr.fedagent")


@dataclass
class Event:
    """What a loop does not decide by itself: the time, its nodes, what it sent and what came.

    Attributes
    ----------
    now_s : when it happened, on the run's clock.
    nodes : all that are connected; None if they are the same as before.
    sent : what nodes were asked, and whether each got a model of its own.
    replies : what came back.
    num_heard : how many nodes could be expected to bring something then; see `Slots`.
    sums : how secure sums ended, whose parts came between.
    """

    now_s: float = 0.0
    nodes: list[int] | None = None
    sent: list[tuple[Dispatch, bool]] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)
    num_heard: int = 0
    sums: list[SumEnd] = field(default_factory=list)


class _Root:
    """What a checkpoint holds: the run, and what it draws random numbers from."""

    def __init__(self, run: object) -> None:
        self.run = run
        self.generators: Any = None

    def take_generators(self) -> None:
        self.generators = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def after_restore(self) -> None:
        python, numpy, pytorch = self.generators
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)


class Checkpointing:
    """Saves a run when that is due, and brings one back.

    Parameters
    ----------
    run : all of its state is reached from here.
    options : when and where; None for never.
    callbacks : of which some have a ``state_dict``.
    statistics : of the run.
    about : plain values that must be the same in a run that goes on, by what they are.
    logs : whether what comes between two checkpoints is logged, on a real fleet.
    """

    def __init__(
        self,
        run: object,
        options: Checkpoints | None,
        callbacks: Sequence[Callback],
        statistics: Statistics,
        about: Mapping[str, str],
        logs: bool = True,
    ) -> None:
        is_wanted = options is not None and (options.in_simulation or not statistics.is_virtual)
        self._options = options if is_wanted else None
        self._callbacks, self._root, self._statistics = callbacks, _Root(run), statistics
        self._about = {"version of fedagent": _installed(), **about}
        self._logs = logs and not statistics.is_virtual
        self._last = self._number = 0
        self._ways: set[Way] = set()  # to what a new process has by itself
        self._log: Log | None = None
        self._lock: Lock | None = None
        self._writer = ThreadPoolExecutor(1, "fedagent-checkpoint")
        self._written: Future[Path] | None = None
        self._nodes: Iterable[int] = ()

    def restore(self) -> bool:
        """Bring back the run of the newest checkpoint that is whole; say whether that was asked.

        Raises
        ------
        CheckpointError
            If there is none, if the run holds what cannot be saved, if the checkpoint is of
            another version of fedagent, another model, rule or scheduler, or if the run is going
            on in another process.
        """
        if self._options is None:
            return False
        self._lock = Lock(self._options.folder)
        self._ways = capture(self._root).ways()
        if not self._options.resume:
            return False
        self._number, snapshot, about = self._options.newest()
        for name, own in self._about.items():
            if about.get(name) != own:
                raise CheckpointError(
                    f"{self._options.folder}: the checkpoint is of another {name} "
                    f"({about.get(name)}, here it is {own}), so the run cannot go on."
                )
        restore(snapshot, self._root)
        for callback in self._callbacks:
            if states := about["callbacks"].get(type(callback).__name__):
                callback.load_state_dict(states.pop(0))
        self._last = self._count
        logger.info("Goes on at version %d, update %d", self._statistics.version, self._last)
        return True

    def logged(self) -> Iterator[Event]:
        """Yield what came after the checkpoint that was restored."""
        assert self._options is not None
        for snapshot in self._options.logged(since=self._number):
            event = Event()
            restore(snapshot, event)
            yield event

    def begin(self) -> None:
        """Save a run on a real fleet for the first time, or again when it has gone on."""
        if self._options is None or not self._logs:
            return
        if not self.save(now=True):
            self._log = self._options.log(self._options.next_number())
        self.wait()  # a log is worth nothing without a checkpoint before it

    def save(self, now: bool = False) -> bool:
        """Begin to save the run, if enough has happened since the last time or `now`.

        Returns
        -------
        Whether it is being saved; `wait` returns when it is.

        Raises
        ------
        CheckpointError
            If the run holds what cannot be saved, and nothing was saved before.
        OutputError
            If the disk did not take the last one.
        """
        if self._options is None:
            return False
        is_due = now or self._count >= self._last + self._options.every
        if is_due or (self._written is not None and self._written.done()):
            self.wait()
        if not is_due:
            return False
        self._root.take_generators()
        try:
            snapshot = capture(self._root)
            snapshot.require_ways(self._ways)
        except NotNow:  # but after the next turn
            return False
        except CheckpointError as error:
            if self._log is None:
                raise
            self._last = self._count
            logger.error(
                "No checkpoint: %s The log since the last one goes on, so nothing is lost.", error
            )
            return False
        self._last = self._count
        states: dict[str, list[Any]] = {}
        for callback in self._callbacks:
            states.setdefault(type(callback).__name__, []).append(callback.state_dict())
        number = self._options.next_number()
        if self._logs:
            if self._log is not None:
                self._log.close()
            self._log = self._options.log(number)
        about = {**self._about, "callbacks": deepcopy(states)}
        self._written = self._writer.submit(self._options.save, number, snapshot, about)
        return True

    def wait(self) -> None:
        """Return when the disk has the checkpoint that is being written, if one is.

        Raises
        ------
        OutputError
            If the disk did not take it.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def close(self) -> None:
        """Let log and folder go, when the disk has all."""
        with ExitStack() as last:
            for held in (self._lock, self._log):
                if held is not None:
                    last.callback(held.close)
            last.callback(self._writer.shutdown)
            self.wait()

    # --- what is logged between two checkpoints -------------------------------------------------

    def sent(self, dispatches: Iterable[tuple[Dispatch, bool]]) -> None:
        """Note what nodes were asked."""
        if self._log is not None and (sent := list(dispatches)):
            self._note(Event(self._statistics.now_s, sent=sent))

    def came(self, replies: list[Message], nodes: Iterable[int], num_heard: int) -> None:
        """Note what came, and who is connected now; return when the disk has the replies."""
        if self._log is None:
            return
        is_known = nodes is self._nodes or list(nodes) == list(self._nodes)
        self._nodes = nodes
        if replies or not is_known:
            joined = None if is_known else list(nodes)
            now_s = self._statistics.now_s
            self._note(Event(now_s, joined, replies=replies, num_heard=num_heard))

    def summed(self, outcome: SumEnd) -> None:
        """Note how a secure sum ended; return when the disk has it."""
        self._note(Event(self._statistics.now_s, sums=[outcome]))

    def due(self) -> None:
        """Note that the rule has something to do by the clock."""
        self._note(Event(self._statistics.now_s))

    def _note(self, event: Event) -> None:
        if self._log is not None:
            self._log.append(capture(event), is_urgent=bool(event.replies or event.sums))

    @property
    def _count(self) -> int:
        by_version = self._options is not None and self._options.unit == "versions"
        return self._statistics.version if by_version else self._statistics.num_updates


def _installed() -> str:
    try:
        return version("fedagent")
    except PackageNotFoundError:  # run from a checkout
        return "a checkout"
