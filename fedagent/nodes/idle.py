"""The nodes that could work now."""

import random
from collections import OrderedDict
from collections.abc import Iterator


class IdleNodes:
    """A set of node ids; random choice, oldest choice, adding and removing are all O(1).

    Only what differs from the beginning is kept: a million nodes of which none has worked yet are
    a range.

    Parameters
    ----------
    fresh : nodes that are idle from the beginning, the oldest ones in this order.
    """

    def __init__(self, fresh: range = range(0)) -> None:
        self._fresh = self._oldest = fresh  # nothing before `oldest` is idle as from the beginning
        self._order: OrderedDict[int, None] = OrderedDict()  # of those that came later
        # The nodes as a list without gaps, to draw from: `fresh` but for these entries.
        self._size = len(fresh)
        self._entries: dict[int, int] = {}
        self._positions: dict[int, int | None] = {}  # None: not in the list

    def add(self, node_id: int) -> None:
        """Add a node as the one that became idle last; no effect if it is there."""
        if self._position(node_id) is None:
            self._order[node_id] = None
            self._put(node_id, self._size)
            self._size += 1

    def discard(self, node_id: int) -> None:
        """Remove a node if it is there."""
        position = self._position(node_id)
        if position is None:
            return
        self._order.pop(node_id, None)
        self._size -= 1
        last = self._entry(self._size)
        self._entries.pop(self._size, None)
        if last != node_id:
            self._put(last, position)
        if node_id in self._fresh:
            self._positions[node_id] = None
        else:
            del self._positions[node_id]

    def sample(self, count: int, generator: random.Random) -> list[int]:
        """Return `count` random idle nodes, or all if there are not so many; O(count)."""
        drawn: dict[int, None] = {}
        while len(drawn) < count and 2 * count < len(self) and self:
            drawn[self.random(generator)] = None
        if len(drawn) == count:
            return list(drawn)
        nodes = sorted(self)
        generator.shuffle(nodes)
        return nodes[:count]

    def random(self, generator: random.Random) -> int:
        """Return a uniformly random idle node."""
        return self._entry(generator.randrange(self._size))

    def oldest(self) -> int:
        """Return the node that has been idle longest."""
        return next(iter(self))

    def _position(self, node_id: int) -> int | None:
        if node_id in self._positions:
            return self._positions[node_id]
        return self._fresh.index(node_id) if node_id in self._fresh else None

    def _entry(self, position: int) -> int:
        node_id = self._entries.get(position)
        return self._fresh[position] if node_id is None else node_id

    def _put(self, node_id: int, position: int) -> None:
        self._entries[position] = node_id
        self._positions[node_id] = position

    def _is_fresh(self, node_id: int) -> bool:
        """Return whether a node of `fresh` has been idle all the time."""
        return node_id not in self._order and self._positions.get(node_id, 0) is not None

    def __contains__(self, node_id: int) -> bool:
        return self._position(node_id) is not None

    def __iter__(self) -> Iterator[int]:
        while self._oldest and not self._is_fresh(self._oldest[0]):
            self._oldest = self._oldest[1:]
        yield from filter(self._is_fresh, self._oldest)
        yield from self._order

    def __len__(self) -> int:
        return self._size
