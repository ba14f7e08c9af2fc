"""A rule around a rule: whatever is asked of it, it asks of the inner one.

`Periodic` and every other rule that changes one thing about another derives from it, and overrides
that one thing. A new hook of `Rule` is forwarded here, once for all of them.
"""

from collections.abc import Callable, Mapping, Set
from typing import Any

import torch

from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.combining import Combining
from fedagent.stopping import RunEnd
from fedagent.update import Rejection, Update


class RuleWrapper(Rule):
    """Everything that `inner` is.

    Parameters
    ----------
    inner : what an update does to the model.
    """

    def __init__(self, inner: Rule) -> None:
        self.inner = inner

    def on_start(self, model: FlatModel) -> None:
        """Pass it on."""
        self.inner.on_start(model)

    def register_node(self, node_id: int, attributes: Mapping[str, float]) -> None:
        """Pass it on."""
        self.inner.register_node(node_id, attributes)

    def begin_round(self, num_updates: int) -> None:
        """Pass it on."""
        self.inner.begin_round(num_updates)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Let the inner rule have the update."""
        return self.inner.receive(model, update)

    def rejection(self, update: Update) -> Rejection | None:
        """Ask the inner rule."""
        return self.inner.rejection(update)

    def discount(self, staleness: int) -> float:
        """Ask the inner rule."""
        return self.inner.discount(staleness)

    def influence(self, update: Update) -> float:
        """Ask the inner rule."""
        return self.inner.influence(update)

    def combine_with(self, combining: Combining) -> None:
        """Let the inner rule combine so."""
        self.inner.combine_with(combining)

    def weigh_equally(self) -> None:
        """Let the inner rule weigh so."""
        self.inner.weigh_equally()

    def model_for(self, node_id: int) -> torch.Tensor | None:
        """Ask the inner rule."""
        return self.inner.model_for(node_id)

    def version_for(self, node_id: int) -> int | None:
        """Ask the inner rule."""
        return self.inner.version_for(node_id)

    def next_due_s(self) -> float:
        """Ask the inner rule."""
        return self.inner.next_due_s()

    def advance(self, model: FlatModel, now_s: float) -> bool:
        """Let the inner rule advance."""
        return self.inner.advance(model, now_s)

    def flush(self, model: FlatModel) -> bool:
        """Let the inner rule apply what it holds."""
        return self.inner.flush(model)

    @property
    def allows_prefetch(self) -> bool:
        """What the inner rule says."""
        return self.inner.allows_prefetch

    @property
    def allows_clock(self) -> bool:
        """What the inner rule says."""
        return self.inner.allows_clock

    @property
    def is_opaque(self) -> bool:
        """What the inner rule says."""
        return self.inner.is_opaque

    @property
    def allows_filters(self) -> bool:
        """What the inner rule says."""
        return self.inner.allows_filters

    @property
    def has_buffer(self) -> bool:
        """What the inner rule says."""
        return self.inner.has_buffer

    @property
    def is_one_per_node(self) -> bool:
        """What the inner rule says."""
        return self.inner.is_one_per_node

    @property
    def needs_clock(self) -> bool:
        """What the inner rule says."""
        return self.inner.needs_clock

    @property
    def needs_groups(self) -> bool:
        """What the inner rule says."""
        return self.inner.needs_groups

    @property
    def barred(self) -> Set[int]:
        """What the inner rule says."""
        return self.inner.barred

    @property
    def end_when_all_are_barred(self) -> RunEnd:
        """What the inner rule says."""
        return self.inner.end_when_all_are_barred

    def job_config(self, node_id: int) -> Mapping[str, int]:
        """Ask the inner rule."""
        return self.inner.job_config(node_id)

    def metrics(self) -> Mapping[str, float]:
        """Ask the inner rule."""
        return self.inner.metrics()

    @property
    def updates_per_version(self) -> int | None:
        """What the inner rule says."""
        return self.inner.updates_per_version

    @property
    def typical_staleness(self) -> float:
        """What the inner rule says."""
        return self.inner.typical_staleness

    @property
    def pending(self) -> int:
        """What the inner rule says."""
        return self.inner.pending

    @property
    def lost(self) -> Mapping[str, int]:
        """What the inner rule says."""
        return self.inner.lost

    def take_withdrawn(self) -> Mapping[int, float]:
        """Ask the inner rule."""
        return self.inner.take_withdrawn()

    @property
    def bytes_between_regions(self) -> int:
        """What the inner rule says."""
        return self.inner.bytes_between_regions

    def memory(self) -> Mapping[str, Any]:
        """Ask the inner rule."""
        return self.inner.memory()

    def remember(self) -> Callable[[], None]:
        """Remember this rule's state, and all that the inner rule does."""
        state, restore_inner = self.state_dict(), self.inner.remember()

        def restore() -> None:
            inner = self.inner.state_dict()
            self.load_state_dict(state)
            self.inner.load_state_dict(inner)  # what of it goes back is its own affair
            restore_inner()

        return restore

    def state_dict(self) -> dict[str, Any]:
        """Return the inner rule's state."""
        return self.inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the inner rule's state."""
        self.inner.load_state_dict(state)
