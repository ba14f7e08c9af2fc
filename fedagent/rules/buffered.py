r"""The skeleton of every rule with a buffer: collect K updates, then step along their mean.

    on each arrival:   S <- S + w_i Delta_i,   W <- W + w_i
    on the K-th:       step(model, S / W),   S, W <- 0

Only the running sum is kept, never the updates. `FedBuff`, `FedNova`, `FADAS` and others are this.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.buffer import Buffer
from fedagent.rules.combining import Combining, CombiningBuffer
from fedagent.update import Update

BufferSize = int | Literal["cohort"] | None
"""Updates per version: a number, as many as a round has, or None: whatever came when it is time."""


class BufferedRule(Rule):
    """A weighted mean of K updates, and what it does to the model.

    A subclass writes two methods, `weight` and `step`. One that divides by something else than the
    weights, or keeps more of an update than the sum, overrides `add`; what it remembers besides
    the buffer goes through `extra_state` and `load_extra_state`.

    Parameters
    ----------
    buffer_size : K >= 1, updates per published version; "cohort" for as many as a round has;
        None leaves publishing to the clock (`Periodic`, the option ``publish_every_s``).

    Attributes
    ----------
    buffer : the running sum and what it will be divided by.
    buffer_size : K; None without one, or as long as no round has begun.
    """

    def __init__(self, buffer_size: BufferSize = 10) -> None:
        self._asked_size = validated_size(type(self).__name__, buffer_size)
        self.buffer_size = None if buffer_size == "cohort" else buffer_size
        self.buffer: Buffer = Buffer()

    def begin_round(self, num_updates: int) -> None:
        """Take the round's number of updates as K, if that is what was asked for."""
        if self._asked_size == "cohort":
            self.buffer_size = num_updates

    def weight(self, update: Update) -> float:
        """Return w_i >= 0 of an update; asked once, when it arrives."""
        return 1.0

    @abstractmethod
    def step(self, model: FlatModel, mean: torch.Tensor) -> None:
        """Move the model by the buffer's (P,) mean, which may be used as scratch."""

    def add(self, model: FlatModel, update: Update) -> None:
        """Take an update into the buffer."""
        self.buffer.add(update.delta, self.weight(update))

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Add an update; the K-th publishes."""
        self.add(model, update)
        model.carry(update.carried, update.staleness)
        is_full = self.buffer_size is not None and len(self.buffer) >= self.buffer_size
        return is_full and self.flush(model)

    def flush(self, model: FlatModel) -> bool:
        """Step along the mean of what the buffer holds, be it full or not."""
        if not self.buffer:
            return False
        self.step(model, self.buffer.take())
        return True

    def combine_with(self, combining: Combining) -> None:
        """Take another buffer, before anything is in it."""
        self.buffer = CombiningBuffer(combining)

    @property
    def has_buffer(self) -> bool:
        """Yes."""
        return True

    @property
    def needs_clock(self) -> bool:
        """Whether the buffer has no size."""
        return self._asked_size is None

    @property
    def updates_per_version(self) -> int | None:
        """K."""
        return self.buffer_size

    @property
    def pending(self) -> int:
        """Updates in the buffer."""
        return len(self.buffer)

    def extra_state(self) -> dict[str, Any]:
        """Return what the rule remembers besides the buffer, under any key but ``buffer``."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `extra_state` returned."""

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer, and what else the rule remembers."""
        return {"buffer": self.buffer.state_dict(), **self.extra_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.buffer.load_state_dict(state["buffer"])
        self.load_extra_state(state)


def validated_size(owner: str, buffer_size: BufferSize) -> BufferSize:
    """Return `buffer_size` if `owner` can work with it.

    Raises
    ------
    ConfigurationError
        If it is neither a positive number nor one of the two words.
    """
    is_number = isinstance(buffer_size, int) and buffer_size >= 1
    require(
        is_number or buffer_size in ("cohort", None),
        f"{owner}: buffer_size={buffer_size} must be at least 1, cohort for as many updates as "
        "a round has, or null to publish by the clock.",
    )
    return buffer_size
