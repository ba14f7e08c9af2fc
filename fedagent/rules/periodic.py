"""Any rule, publishing by the clock: what arrived in T seconds makes one version.

The inner rule moves the model as it always does; its own versions are not published. At the end of
every period of T seconds, counted from the beginning of the run, what its buffer holds is applied
(`Rule.flush`), and a version comes out if that or anything in the period has moved the model. With
``buffer_size=None`` a buffered rule's version is the mean of whatever arrived in the last T
seconds. Staleness then counts periods.
"""

import math
from collections.abc import Mapping
from typing import Any

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.wrapper import RuleWrapper
from fedagent.update import Update


class Periodic(RuleWrapper):
    """`inner`, but a version every `period_s` seconds instead of its own.

    Parameters
    ----------
    inner : what an update does to the model.
    period_s : T > 0, seconds on the run's clock.
    """

    def __init__(self, inner: Rule, period_s: float) -> None:
        require(period_s > 0, f"publish_every_s={period_s} must be positive.")
        require(
            inner.allows_clock,
            f"{type(inner).__name__} must publish as soon as its batch is complete, so "
            f"publish_every_s={period_s} cannot work: leave it out, or take a rule whose buffer "
            "needs no size, such as Rennala(buffer_size=None).",
        )
        super().__init__(inner)
        self.period_s = period_s
        self._unpublished, self._has_moved, self._due_s = 0, False, math.inf

    @property
    def needs_clock(self) -> bool:
        """No: this is one."""
        return False

    @property
    def updates_per_version(self) -> int | None:
        """None: the clock decides."""
        return None

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Let the inner rule have the update; publish at the end of the period it arrived in."""
        self._unpublished += 1
        self._note(self.inner.receive(model, update), update.arrived_s)
        return False

    def next_due_s(self) -> float:
        """Return the end of the period, if anything came in it, or what the inner rule says."""
        return min(self._due_s, self.inner.next_due_s())

    def advance(self, model: FlatModel, now_s: float) -> bool:
        """Publish, or let the inner rule advance."""
        if self.inner.next_due_s() > self._due_s:
            return self.flush(model)
        if self.inner.advance(model, now_s):
            self._note(True, now_s)
        return False

    def _note(self, has_moved: bool, now_s: float) -> None:
        """Make the end of the period due, and remember whether the model has moved in it."""
        self._has_moved = self._has_moved or has_moved
        if self._due_s == math.inf:
            self._due_s = (math.floor(now_s / self.period_s) + 1) * self.period_s

    def flush(self, model: FlatModel) -> bool:
        """Apply what the inner rule holds; publish if the model moved since the last version."""
        is_new = self.inner.flush(model) or self._has_moved
        self._unpublished, self._has_moved = self.inner.pending, False
        self._due_s = math.inf
        return is_new

    @property
    def pending(self) -> int:
        """Updates since the last version, and those that the inner rule kept back then."""
        return self._unpublished

    def state_dict(self) -> dict[str, Any]:
        """Return the inner rule's state and what happened in this period."""
        return {
            "inner": self.inner.state_dict(),
            "unpublished": self._unpublished,
            "has_moved": self._has_moved,
            "due_s": self._due_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state["inner"])
        self._unpublished, self._due_s = int(state["unpublished"]), float(state["due_s"])
        self._has_moved = bool(state["has_moved"])
