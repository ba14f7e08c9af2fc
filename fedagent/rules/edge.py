r"""The edge of a region: its own model under its own rule, and what the root was told of it.

    e      the region's model: what its nodes train, moved by the region's rule
    h      e without what the root was not sent yet;    u = e - h
    send:      u travels up,                  h <- e
    merge:     h <- (1 - a) h + a x,          e <- h + u          x: the root's model, u as before

x knows of the region what h holds, so these two are mixed. What the region learned while its delta
and the root's answer were under way stays on top, and is sent next: every update reaches the root
once, and none is merged away before it did. If nothing was learned meanwhile, u = 0, and this is
e <- (1 - a) e + a x.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.update import Update


@dataclass(eq=False)
class Parcel:
    """What is under way between an edge and the root.

    Attributes
    ----------
    due_s : when it arrives, in seconds since the run began.
    is_going_up : a delta to the root, or the root's model to the edge.
    vector : (P,) delta, or model.
    version : the root's version that the delta is based on, or that the model is.
    base : (P,) going up: h, so that base + vector is the edge's model.
    returned : (P,) going down: the delta, if the root's rule refused it.
    carried : integer and boolean buffers by name.
    num_updates : updates of nodes in the delta, or in what was refused.
    num_examples : their weights, summed.
    """

    due_s: float
    is_going_up: bool
    vector: torch.Tensor
    version: int
    base: torch.Tensor | None = None
    returned: torch.Tensor | None = None
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)
    num_updates: int = 0
    num_examples: float = 0.0


class Edge:
    """One region. Memory: 3 P floats, those of its rule, and at most 2 P under way.

    Parameters
    ----------
    rule : the region's own; nobody else's model may be under it.
    root : version 0; it is copied.

    Attributes
    ----------
    model : e, as the rule moves it.
    published : (P,) e at its newest version: what nodes get and what the root is told.
    version : how often the region's rule has published. A merge is no version of the region's.
    root_version : the root's version that was last merged.
    num_updates, num_examples : of nodes, in `published` and not sent yet.
    parcel : what is under way; at most one, so a slow link is never queued on.
    """

    def __init__(self, rule: Rule, root: FlatModel) -> None:
        self.rule = rule
        self.model = FlatModel(root.spec, root.arrays())
        self.published = self.model.vector.clone()
        self._told = self.model.vector.clone()  # h
        self.version = self.root_version = 0
        self.num_updates, self.num_examples = 0, 0.0
        self._fresh_updates, self._fresh_examples = 0, 0.0
        self.parcel: Parcel | None = None
        rule.begin(self.model)

    def receive(self, update: Update) -> None:
        """Let the region's rule take one update in."""
        self._fresh_updates += 1
        self._fresh_examples += update.num_examples
        if self.rule.receive(self.model, update):
            self._publish()

    def advance(self, now_s: float) -> None:
        """Let the region's rule do what is due."""
        if self.rule.advance(self.model, now_s):
            self._publish()

    def _publish(self) -> None:
        self.published.copy_(self.model.vector)
        self.version += 1
        self.num_updates += self._fresh_updates
        self.num_examples += self._fresh_examples
        self._fresh_updates, self._fresh_examples = 0, 0.0

    def send(self, due_s: float) -> None:
        """Send the root what the region learned since it last did; it arrives at `due_s`."""
        self.parcel = Parcel(
            due_s,
            is_going_up=True,
            vector=self.published - self._told,
            version=self.root_version,
            base=self._told,
            carried=dict(self.model.carried),
            num_updates=self.num_updates,
            num_examples=self.num_examples,
        )
        self._told = self.published.clone()
        self.num_updates, self.num_examples = 0, 0.0

    def merge(self, parcel: Parcel, weight: float) -> None:
        """Take over the root's model with weight a; a refused delta is to be sent again."""
        if parcel.returned is not None:
            self._told.sub_(parcel.returned)
            self.num_updates += parcel.num_updates
            self.num_examples += parcel.num_examples
        step = (parcel.vector - self._told).mul_(weight)
        for vector in (self._told, self.published, self.model.vector):
            vector.add_(step)
        self.model.carry(parcel.carried)
        self.root_version = parcel.version
        self.parcel = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here."""
        return {
            "rule": self.rule.state_dict(),
            "model": self.model.state_dict(),
            "published": self.published.clone(),
            "told": self._told.clone(),
            "counts": [self.version, self.root_version, self.num_updates, self._fresh_updates],
            "examples": [self.num_examples, self._fresh_examples],
            "parcel": None if self.parcel is None else asdict(self.parcel),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.rule.load_state_dict(state["rule"])
        self.model.load_state_dict(state["model"])
        self.published.copy_(state["published"])
        self._told = state["told"].clone()
        self.version, self.root_version, self.num_updates, self._fresh_updates = state["counts"]
        self.num_examples, self._fresh_examples = state["examples"]
        self.parcel = None if state["parcel"] is None else Parcel(**state["parcel"])
