"""Saving a run's state between two events, and going on from it.

The loop is one thread. Between two of its turns nothing is half done: what is under way is in the
grid's queue, in the ledger or in the buffer. There one snapshot of all that the run reaches is the
run, and what follows is decided by it alone. So what a simulated run does after a checkpoint it
does again, bit for bit, when it is resumed: nothing is lost, and nothing happens twice.
"""

import logging
import random
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from fedagent.errors import CheckpointError, require
from fedagent.journal import NotNow, capture, restore
from fedagent.journal.kinds import Path
from fedagent.proxy.options import AsyncOptions
from fedagent.proxy.versions import Versions
from fedagent.statistics import Statistics

logger = logging.getLogger("flwr.fedagent")


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
    options : when and where, and the callbacks, of which some have a ``state_dict``.
    versions : of the run's model.

    Raises
    ------
    ConfigurationError
        If the run cannot be saved.
    """

    def __init__(
        self, run: object, options: AsyncOptions, statistics: Statistics, versions: Versions
    ) -> None:
        self._options, self._callbacks = options.checkpoint, options.callbacks
        self._root, self._statistics = _Root(run), statistics
        self._about = {
            "version of fedagent": _installed(),
            "model": str(versions.model.spec.arrays),
            "rule": type(versions.rule).__name__,
            "scheduler": type(options.scheduler).__name__,
        }
        self._last = 0
        self._ways: set[Path] = set()  # to what a new process has by itself
        require(
            self._options is None or statistics.is_virtual,
            "checkpoint: only a simulated run can be saved and resumed; set checkpoint=off.",
        )

    def restore(self) -> bool:
        """Bring back the run of the newest checkpoint that is whole; say whether that was asked.

        Raises
        ------
        CheckpointError
            If there is none, if the run holds what cannot be saved, or if the checkpoint is of
            another version of fedagent, another model, rule or scheduler.
        """
        if self._options is None:
            return False
        self._ways = capture(self._root).ways()
        if not self._options.resume:
            return False
        snapshot, about = self._options.newest()
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

    def save(self, is_last: bool = False) -> None:
        """Save the run if enough has happened since the last time, or if it is about to stop."""
        if self._options is None:
            return
        if not is_last and self._count < self._last + self._options.every:
            return
        self._root.take_generators()
        try:
            snapshot = capture(self._root)
        except NotNow:  # but after the next turn
            return
        snapshot.require_ways(self._ways)
        self._last = self._count
        states: dict[str, list[Any]] = {}
        for callback in self._callbacks:
            states.setdefault(type(callback).__name__, []).append(callback.state_dict())
        about = {**self._about, "callbacks": states}
        self._options.save(snapshot, about)

    @property
    def _count(self) -> int:
        by_version = self._options is not None and self._options.unit == "versions"
        return self._statistics.version if by_version else self._statistics.num_updates


def _installed() -> str:
    try:
        return version("fedagent")
    except PackageNotFoundError:  # run from a checkout
        return "a checkout"
