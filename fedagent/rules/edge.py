r"""The edge of a region: its own model under its own rule, and what the root was told of it.

    e      the region's model: what its nodes train, moved by the region's rule
    h      e without what x, the root's model that arrives, does not hold: deltas that the root
           got after it answered, or has still to get, and what was not sent yet
    send:      what was not sent yet travels up
    merge:     e <- e + a (x - h), that is h <- (1 - a) h + a x with the rest on top

x knows of the region what h holds, so these two are mixed. What the region learned meanwhile stays
on top, and is sent: every update reaches the root once, and none is merged away before it did. If
nothing was learned meanwhile, h = e, and this is e <- (1 - a) e + a x.

A link carries one thing at a time in each direction: an edge sends when its last delta has arrived,
without waiting for the answer, and answers travel one after the other.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from fedagent.model import FlatModel, blocks
from fedagent.rules.base import Rule
from fedagent.update import Update


@dataclass(eq=False)
class Transfer:
    """What is under way between an edge and the root.

    Attributes
    ----------
    due_s : when it arrives, in seconds since the run began.
    vector : (P,) a delta going up, or the root's model coming down.
    version : the root's version that the delta is based on, or that the model is.
    base : (P,) of a delta: base + vector is the edge's model.
    is_refusal : of an answer: the root's rule refused the delta.
    carried : buffers that are not averaged, by name: of a delta those that changed.
    num_updates : updates of nodes in the delta, or in what was refused.
    num_examples : their weights, summed.
    """

    due_s: float
    vector: torch.Tensor
    version: int
    base: torch.Tensor | None = None
    is_refusal: bool = False
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)
    num_updates: int = 0
    num_examples: float = 0.0


class Edge:
    """One region. Memory: 3 P floats, those of its rule, and 2 P for each thing under way.

    Parameters
    ----------
    rule : the region's own; nobody else's model may be under it.
    root : version 0; it is copied.

    Attributes
    ----------
    model : e, as the rule moves it. Its version is how often the region's rule has published; a
        merge is no version of the region's.
    published : (P,) e at its newest version: what nodes get and what the root is told.
    root_version : the root's version that was last merged.
    num_updates, num_examples : of nodes, in `published` and not sent yet.
    going_up : the delta under way, if any.
    coming_down : the root's answers under way, oldest first.
    """

    def __init__(self, rule: Rule, root: FlatModel) -> None:
        self.rule = rule
        self.model = FlatModel(root.spec, root.arrays())
        self.published = self.model.vector.clone()
        self._told = self.model.vector.clone()  # e without what was not sent yet
        self._told_carried = dict(self.model.carried)
        self._unanswered: list[torch.Tensor] = []
        self.root_version = 0
        self.num_updates, self.num_examples = 0, 0.0
        self._fresh_updates, self._fresh_examples = 0, 0.0
        self.going_up: Transfer | None = None
        self.coming_down: list[Transfer] = []

    def due_s(self) -> float:
        """Return when something arrives or the rule has something to do."""
        under_way = (self.going_up, *self.coming_down[:1])
        arrivals = [transfer.due_s for transfer in under_way if transfer]
        return min(*arrivals, self.rule.next_due_s(), math.inf)

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
        self.model.version += 1
        self.num_updates += self._fresh_updates
        self.num_examples += self._fresh_examples
        self._fresh_updates, self._fresh_examples = 0, 0.0

    def send(self, due_s: float) -> None:
        """Send the root what the region learned since it last did; it arrives at `due_s`."""
        self.going_up = Transfer(
            due_s,
            vector=self.published - self._told,
            version=self.root_version,
            base=self._told,
            carried={
                name: value
                for name, value in self.model.carried.items()
                if not torch.equal(value, self._told_carried[name])
            },
            num_updates=self.num_updates,
            num_examples=self.num_examples,
        )
        self._unanswered.append(self.going_up.vector)
        self._told, self._told_carried = self.published.clone(), dict(self.model.carried)
        self.num_updates, self.num_examples = 0, 0.0

    def merge(self, weight: float) -> None:
        """Take over the root's model with weight a; a refused delta is to be sent again."""
        answer, delta = self.coming_down.pop(0), self._unanswered.pop(0)
        if answer.is_refusal:
            self._told.sub_(delta)
            self.num_updates += answer.num_updates
            self.num_examples += answer.num_examples
        moved = (self._told, self.published, self.model.vector)
        for told, published, e, x, *later in blocks(*moved, answer.vector, *self._unanswered):
            step = x - told
            for delta in later:
                step.add_(delta)
            step.mul_(weight)
            for vector in (told, published, e):
                vector.add_(step)
        self.model.carry(answer.carried)
        self._told_carried = dict(answer.carried)
        self.root_version = answer.version

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here."""
        return {
            "rule": self.rule.state_dict(),
            "model": self.model.state_dict(),
            "published": self.published.clone(),
            "told": self._told.clone(),
            "told_carried": {name: value.clone() for name, value in self._told_carried.items()},
            "counts": [self.root_version, self.num_updates, self._fresh_updates],
            "examples": [self.num_examples, self._fresh_examples],
            "unanswered": [delta.clone() for delta in self._unanswered],
            "going_up": None if self.going_up is None else asdict(self.going_up),
            "coming_down": [asdict(transfer) for transfer in self.coming_down],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.rule.load_state_dict(state["rule"])
        self.model.load_state_dict(state["model"])
        self.published.copy_(state["published"])
        self._told = state["told"].clone()
        self._told_carried = {name: v.clone() for name, v in state["told_carried"].items()}
        self.root_version, self.num_updates, self._fresh_updates = state["counts"]
        self.num_examples, self._fresh_examples = state["examples"]
        self._unanswered = [delta.clone() for delta in state["unanswered"]]
        self.going_up = None if state["going_up"] is None else Transfer(**state["going_up"])
        self.coming_down = [Transfer(**transfer) for transfer in state["coming_down"]]
