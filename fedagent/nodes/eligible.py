"""A part of the idle nodes, chosen by a question, without a copy."""

import random
from collections.abc import Callable, Iterator
from math import isqrt

from fedagent.nodes.idle import IdleNodes

_DRAWS = 8  # at least; of many nodes the root, because the last resort is to ask all of them


class Eligible(IdleNodes):
    """The nodes of `idle` that `accepts` says yes to; a view with the same interface.

    While at least half of the idle nodes are eligible, a random or the oldest one is found in O(1)
    on average; at worst every idle node is asked. The length asks all of them, the truth value
    stops at the first.

    Parameters
    ----------
    idle : the set looked at; adding and removing happens there.
    accepts : node id -> whether the node is part of the view.
    """

    def __init__(self, idle: IdleNodes, accepts: Callable[[int], bool]) -> None:
        super().__init__()
        self._idle, self._accepts = idle, accepts

    def add(self, node_id: int) -> None:
        """Add a node to the set behind the view."""
        self._idle.add(node_id)

    def discard(self, node_id: int) -> None:
        """Remove a node from the set behind the view."""
        self._idle.discard(node_id)

    def random(self, generator: random.Random) -> int:
        """Return a uniformly random eligible node."""
        for _ in range(max(_DRAWS, isqrt(self._num_behind))):
            node_id = self._idle.random(generator)
            if self._accepts(node_id):
                return node_id
        return generator.choice(list(self))

    @property
    def _num_behind(self) -> int:
        """How many nodes there are behind all views: nobody is asked for that."""
        behind = self._idle
        return behind._num_behind if isinstance(behind, Eligible) else len(behind)

    def oldest(self) -> int:
        """Return the eligible node that has been idle longest."""
        return next(iter(self))

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._idle and self._accepts(node_id)

    def __iter__(self) -> Iterator[int]:
        return filter(self._accepts, self._idle)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)
