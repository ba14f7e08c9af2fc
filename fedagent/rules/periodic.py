"""Any rule, publishing by the clock: what arrived in T seconds makes one version.

The inner rule moves the model as it always does; its own versions are not published. Every T
seconds since the run began, if anything arrived, what its buffer holds is applied (`Rule.flush`)
and one version comes out. With ``FedBuff(buffer_size=None)`` a version is the mean of whatever
arrived in the last T seconds. Staleness then counts periods.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.update import Update


class Periodic(Rule):
    """`inner`, but a version every `period_s` seconds instead of its own.

    Parameters
    ----------
    inner : what an update does to the model.
    period_s : T > 0, seconds on the run's clock.
    """

    def __init__(self, inner: Rule, period_s: float) -> None:
        require(period_s > 0, f"publish_every_s={period_s} must be positive.")
        self.inner, self.period_s = inner, period_s
        self.rejection_reason, self.rejection_advice = (
            inner.rejection_reason,
            inner.rejection_advice,
        )
        self._arrived, self._due_s = 0, math.inf

    def on_start(self, model: FlatModel) -> None:
        """Pass it on."""
        self.inner.on_start(model)

    def register_node(self, node_id: int, attributes: Mapping[str, float]) -> None:
        """Pass it on."""
        self.inner.register_node(node_id, attributes)

    def accepts(self, update: Update) -> bool:
        """Ask the inner rule."""
        return self.inner.accepts(update)

    def model_for(self, node_id: int) -> torch.Tensor | None:
        """Ask the inner rule."""
        return self.inner.model_for(node_id)

    def version_for(self, node_id: int) -> int | None:
        """Ask the inner rule."""
        return self.inner.version_for(node_id)

    def job_config(self, node_id: int) -> Mapping[str, int]:
        """Ask the inner rule."""
        return self.inner.job_config(node_id)

    @property
    def allows_prefetch(self) -> bool:
        """What the inner rule says."""
        return self.inner.allows_prefetch

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Let the inner rule have the update; publish at the end of the period it arrived in."""
        self.inner.receive(model, update)
        if self._arrived == 0:
            self._due_s = (math.floor(update.arrived_s / self.period_s) + 1) * self.period_s
        self._arrived += 1
        return False

    def next_due_s(self) -> float:
        """Return the end of the period, if anything arrived in it, or what the inner rule says."""
        return min(self._due_s, self.inner.next_due_s())

    def advance(self, model: FlatModel, now_s: float) -> bool:
        """Publish, or let the inner rule advance."""
        if self.inner.next_due_s() <= self._due_s:
            self.inner.advance(model, now_s)
            return False
        self.inner.flush(model)
        self._arrived, self._due_s = 0, math.inf
        return True

    def metrics(self) -> Mapping[str, float]:
        """Return what the inner rule says."""
        return self.inner.metrics()

    @property
    def pending(self) -> int:
        """Updates of this period, and those that the inner rule did not let go."""
        return max(self._arrived, self.inner.pending)

    @property
    def bytes_between_regions(self) -> int:
        """What the inner rule says."""
        return self.inner.bytes_between_regions

    def state_dict(self) -> dict[str, Any]:
        """Return the inner rule's state and what arrived in this period."""
        return {"inner": self.inner.state_dict(), "arrived": self._arrived, "due_s": self._due_s}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state["inner"])
        self._arrived, self._due_s = int(state["arrived"]), float(state["due_s"])
