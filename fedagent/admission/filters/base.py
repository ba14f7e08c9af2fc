"""The contract of a filter, and what several of them need."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedagent.model import FlatModel
from fedagent.update import Outcome, Rejection, Update


class Filter(ABC):
    """Looks at one update after the other, before the rule has them.

    What it remembers is in `state_dict`.
    """

    @abstractmethod
    def judge(self, update: Update, model: FlatModel) -> Update | Rejection:
        """Return the update, perhaps changed, for the next filter and the rule, or refuse it.

        The memory of ``update.delta`` may be changed. `model` must not.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered: tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Votes:
    """The newest number of every node: one vote each, however often a node is heard.

    A quantile of them is one that a minority of the nodes moves only within the honest nodes' own.

    Parameters
    ----------
    most : nodes that are kept; the one that was heard longest ago is forgotten.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._by_node: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._by_node)

    def cast(self, node_id: int, number: float) -> None:
        """Take a node's number in, in place of its last one."""
        self._by_node.pop(node_id, None)
        self._by_node[node_id] = number
        if len(self._by_node) > self._most:
            del self._by_node[next(iter(self._by_node))]

    def values(self) -> list[float]:
        """Return the numbers."""
        return list(self._by_node.values())

    def quantile(self, share: float) -> float:
        """Return the quantile of the votes, of which there is at least one."""
        return float(np.quantile(self.values(), share))

    def state_dict(self) -> dict[str, Any]:
        """Return the votes, in the order of their age."""
        return {"nodes": list(self._by_node), "numbers": self.values()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the votes."""
        self._by_node = dict(zip(map(int, state["nodes"]), state["numbers"], strict=True))


def refused(reason: str, detail: str, *, blames_node: bool = True) -> Rejection:
    """Return the rejection of an update."""
    return Rejection(Outcome.REJECTED, reason, detail, blames_node)
