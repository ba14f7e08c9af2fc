"""At most one update of a node in a version, whichever rule makes it.

Everything published on robust aggregation, and on privacy, assumes one update per client per round.
Without rounds a fast node would send ten where another one sends one, and a majority of a buffer
might be three nodes. So the inner rule gets nothing before K different nodes have sent something,
and then one update of each.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from fedagent.errors import one_of, require
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.wrapper import RuleWrapper
from fedagent.update import Group, Update

PerNode = Literal["newest", "mean"]
"""Which of a node's updates counts: its newest, or their mean, as old as the newest is."""


class OnePerNode(RuleWrapper):
    """`inner`, whose buffer holds at most one update of a node.

    It needs K connected nodes. What another update of the same node has replaced is counted as
    lost, "superseded". Keeps K updates and the models that they started from.

    Parameters
    ----------
    inner : a rule with a buffer.
    keep : see `PerNode`.

    Raises
    ------
    ConfigurationError
        If `inner` has no buffer.
    """

    def __init__(self, inner: Rule, keep: PerNode = "newest") -> None:
        super().__init__(inner)
        one_of("per_node", keep, get_args(PerNode))
        require(
            inner.has_buffer,
            f"{type(inner).__name__} has no buffer in which a node could have one update only: "
            "take a rule with one, such as FedBuff, FedNova, FADAS or Rennala.",
        )
        self.keep = keep
        self._held: dict[int, Update] = {}
        self._counts: dict[int, int] = {}
        self._withdrawn: dict[int, float] = {}
        self._num_superseded = 0

    @property
    def is_one_per_node(self) -> bool:
        """Yes."""
        return True

    @property
    def pending(self) -> int:
        """Updates that wait, here or in the inner rule."""
        return len(self._held) + self.inner.pending

    @property
    def lost(self) -> Mapping[str, int]:
        """What the inner rule has lost, and what was replaced."""
        own = {"superseded": self._num_superseded} if self._num_superseded else {}
        return {**self.inner.lost, **own}

    def take_withdrawn(self) -> Mapping[int, float]:
        """Return the influence of what was replaced."""
        taken, self._withdrawn = self._withdrawn, {}
        return taken

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Hold an update instead of an earlier one of its node; K of them go to the inner rule."""
        node_id = update.node_id
        earlier = self._held.pop(node_id, None)
        count = self._counts[node_id] = self._counts.get(node_id, 0) + 1
        if earlier is not None:
            self._num_superseded += 1
            lost = self._withdrawn.get(node_id, 0.0) + self.inner.influence(earlier)
            self._withdrawn[node_id] = lost
            if self.keep == "mean":
                update.delta.lerp_(earlier.delta, 1.0 - 1.0 / count)
        self._held[node_id] = update
        size = self.inner.updates_per_version
        return size is not None and len(self._held) >= size and self._hand_over(model)

    def _hand_over(self, model: FlatModel) -> bool:
        held = list(self._held.values())
        self._held.clear()
        self._counts.clear()
        is_published = False
        for update in held:
            is_published = self.inner.receive(model, update) or is_published
        return is_published

    def flush(self, model: FlatModel) -> bool:
        """Let the inner rule have what there is."""
        is_published = self._hand_over(model)
        return self.inner.flush(model) or is_published

    def memory(self) -> Mapping[str, Any]:
        """Return what is held, and all that the inner rule goes by."""
        return {"inner": self.inner.memory(), "held": [u.delta for u in self._held.values()]}

    def state_dict(self) -> dict[str, Any]:
        """Return the inner rule's state, and what is held."""
        return {
            "inner": self.inner.state_dict(),
            "held": [_state_of(update) for update in self._held.values()],
            "counts": {str(node_id): count for node_id, count in self._counts.items()},
            "num_superseded": self._num_superseded,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state["inner"])
        held = map(_from_state, state["held"])
        self._held = {update.node_id: update for update in held}
        self._counts = {int(node_id): int(count) for node_id, count in state["counts"].items()}
        self._withdrawn = {}
        self._num_superseded = int(state["num_superseded"])


def _state_of(update: Update) -> dict[str, Any]:
    """Return an update as tensors and plain values."""
    fields = {name: getattr(update, name) for name in Update.__slots__}
    group = update.group
    return fields | {
        "delta": update.delta.clone(),
        "base": update.base.clone(),
        "carried": {name: value.clone() for name, value in update.carried.items()},
        "metrics": dict(update.metrics),
        "group": None if group is None else [group.number, group.size],
    }


def _from_state(state: Mapping[str, Any]) -> Update:
    """Return what `_state_of` was asked of."""
    group = state["group"]
    update = Update(**{**state, "group": None if group is None else Group(*group)})
    return replace(update, delta=update.delta.clone(), base=update.base.clone())
