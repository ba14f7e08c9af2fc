"""No version is published that is not finite: what the rule did is undone, the update refused."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fedagent.proxy.dispatcher import Dispatcher
from fedagent.proxy.versions import Versions
from fedagent.rules import Rule
from fedagent.update import Outcome, Rejection, Update

logger = logging.getLogger("flwr.fedagent")


@dataclass(frozen=True, slots=True, eq=False)
class _Before:
    """Model and rule as they were before a suspicious update of a node."""

    IS_PASSING: ClassVar = True  # with the next version

    node_id: int
    model: Mapping[str, Any]
    restore_rule: Callable[[], None]
    num_odd: int


class Safeguard:
    """Watches what a rule makes of the model.

    An update is suspicious if its square leaves the range of the model's narrowest dtype. Model and
    rule are remembered as they were before it, until a sound version holds it; an honest run pays
    nothing for that. If a version is not finite, or the rule's memory is not with a suspicious
    update in it, they go back. Where no update was suspicious, as in a run that diverges slowly,
    the model goes back to the last version and the rule to its beginning.

    Parameters
    ----------
    versions, dispatcher : of the run.
    rule : before it has received anything.
    """

    def __init__(self, versions: Versions, rule: Rule, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._versions, self._rule, self._model = versions, rule, versions.model
        self._is_on = not rule.is_opaque  # nothing is computed with such a model
        narrowest = versions.model.spec.narrowest if self._is_on else np.dtype(np.float32)
        self._limit = float(np.finfo(narrowest).max) ** 0.5
        self._restore_first = rule.remember()
        self._before: _Before | None = None

    def watch(self, update: Update) -> None:
        """Look at an update before the rule receives it."""
        if self._before is None and not update.largest_change <= self._limit:
            model, restore = self._model.state_dict(), self._rule.remember()
            num_odd = _num_odd(self._rule.memory())
            self._before = _Before(update.node_id, model, restore, num_odd)

    def is_sound(self, is_published: bool, node_id: int | None = None) -> bool:
        """Return whether what the rule would publish, or gives a node of its own, is finite."""
        if not self._is_on:
            return True
        own = None if node_id is None else self._rule.model_for(node_id)
        holds_finite = self._model.spec.holds_finite
        if own is not None and not holds_finite(own):
            return False
        if not is_published:
            return True
        if not holds_finite(self._model.vector):
            return False
        if self._before is not None:
            if _num_odd(self._rule.memory()) > self._before.num_odd:
                return False
            self._before = None
        return True

    def undo(self, node_id: int | None = None) -> Rejection:
        """Take back what the rule did; return how the update of `node_id` ends that completed it.

        Its node is to blame, unless a suspicious update came from another one before.
        """
        before, self._before = self._before, None
        current = self._versions.current
        state = self._model.state_dict() | {"vector": current.vector.clone()}
        state |= {"carried": dict(current.carried)}
        self._model.load_state_dict(state if before is None else before.model)
        (self._restore_first if before is None else before.restore_rule)()
        self._rule.on_start(self._model)
        for dispatch in self._dispatcher.ledger.in_flight():  # a rule as it was may not know them
            attributes = self._dispatcher.attributes(dispatch.node_id)
            self._rule.register_node(dispatch.node_id, attributes)
        self._dispatcher.statistics.buffered = self._rule.pending
        culprit = node_id if before is None else before.node_id
        detail = (
            "the rule made a model of it that is not finite in its own dtypes, which is undone; "
            + (
                "it came after no suspicious update: is the server's learning rate too large?"
                if before is None
                else f"node {culprit} sent a change whose square overflows"
            )
        )
        logger.warning("Version %d is not published: %s", self._model.version + 1, detail)
        blames_node = culprit == node_id
        return Rejection(Outcome.REJECTED, "version-not-finite", detail, blames_node)


def _num_odd(memory: Any) -> int:
    """Return how many numbers in the arrays of a rule's memory are not finite."""
    if isinstance(memory, Mapping):
        return sum(map(_num_odd, memory.values()))
    if isinstance(memory, list | tuple):
        return sum(map(_num_odd, memory))
    if isinstance(memory, torch.Tensor):
        return int((~torch.isfinite(memory)).sum())
    if isinstance(memory, np.ndarray) and memory.dtype.kind in "fc":
        return int((~np.isfinite(memory)).sum())
    return 0
