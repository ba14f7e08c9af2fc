"""What is known of a node besides its id, where the grid knows anything."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol, cast, runtime_checkable

from flwr.serverapp import Grid

REMOTE = "is-remote"
"""1 if the node is in another region than the proxy it talks to."""


@runtime_checkable
class KnowsNodes(Protocol):
    """A grid that knows its nodes: a simulation does."""

    def attributes(self, node_id: int) -> Mapping[str, float]:
        """Return what is known of a node, name -> number; see `fedagent.regions`."""


def attributes_of(grid: Grid, node_id: int) -> Mapping[str, float]:
    """Return what the grid knows of a node; nothing, if it is one of Flower's own."""
    return cast(KnowsNodes, grid).attributes(node_id) if _knows_nodes(type(grid)) else {}


@lru_cache  # of a protocol Python compares every method, with every question
def _knows_nodes(kind: type) -> bool:
    return issubclass(kind, KnowsNodes)
