"""Choosing among nodes that come and go, without asking all of them whether they are there."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator

from fedagent.nodes.idle import IdleNodes


class Population(ABC):
    """Nodes that are described instead of listed: whether one is there, only asking it can tell.

    It stands for one moment: whatever is asked, and when, the answers agree.

    Attributes
    ----------
    registered : the ids of all nodes, there or not.
    """

    registered: range

    @abstractmethod
    def __contains__(self, node_id: int) -> bool:
        """Return whether a node is there."""

    def __iter__(self) -> Iterator[int]:
        return filter(self.__contains__, self.registered)

    def count(self, sample: int = 1000) -> int:
        """Return how many nodes are there: beyond `sample` registered ones, an estimate.

        It asks every k-th node, at most `sample` of them; for independent nodes its standard
        deviation is below 1.6 % of the population.
        """
        asked = self.registered[:: -(-len(self.registered) // sample)]
        there = sum(node_id in self for node_id in asked)
        return round(there * len(self.registered) / len(asked))


class PresentNodes(IdleNodes):
    """The idle nodes of a population. A node is asked whether it is there when it is chosen.

    One that is not is put aside until the next look at the population, so that a look costs what
    was put aside since the last one, and a choice on average 1 / (share of nodes present)
    questions. The length includes nodes that were not asked yet.
    """

    def __init__(self, population: Population) -> None:
        super().__init__(population.registered)
        self._population = population
        self._aside: list[int] = []

    def look(self, population: Population) -> list[int]:
        """Go on with what is there now; return the nodes put aside, which are to be added again."""
        self._population = population
        aside, self._aside = self._aside, []
        return aside

    def random(self, generator: random.Random) -> int:
        """Return a uniformly random idle node that is there; IndexError if there is none."""
        while len(self):
            node_id = super().random(generator)
            if self._is_there(node_id):
                return node_id
        raise IndexError("no idle node is there")

    def _is_there(self, node_id: int) -> bool:
        is_there = node_id in self._population
        if not is_there:
            self.discard(node_id)
            self._aside.append(node_id)
        return is_there

    def __contains__(self, node_id: int) -> bool:
        return super().__contains__(node_id) and node_id in self._population

    def __iter__(self) -> Iterator[int]:
        if self:  # from here on the first one is there
            yield from filter(self._population.__contains__, super().__iter__())

    def __bool__(self) -> bool:
        while len(self):
            if self._is_there(next(super().__iter__())):
                return True
        return False
