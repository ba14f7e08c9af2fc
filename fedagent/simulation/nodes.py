"""The nodes of a simulated fleet: which there are, and what is kept of those that work."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

from flwr.app import Error, Message, RecordDict

from fedagent.nodes.population import Population
from fedagent.simulation.fleets import Fleet
from fedagent.simulation.profiles import NodeProfile
from fedagent.simulation.workers.base import Pending
from fedagent.simulation.workers.work import ClientResult
from fedagent.update import Dispatch

_PROFILES = 1 << 16  # that are kept although their nodes do nothing: to draw one anew is slow


@dataclass(eq=False, slots=True)
class Node:
    """A node with work, or with something to remember."""

    UNSAVED: ClassVar = ("profile",)

    index: int
    node_id: int
    profile: NodeProfile
    jobs_begun: int
    state: RecordDict = field(default_factory=RecordDict)
    current: "SimulatedJob | None" = None
    waiting: "deque[SimulatedJob]" = field(default_factory=deque)
    downloaded_s: float = 0.0
    uploaded_s: float = 0.0


@dataclass(eq=False, slots=True)
class SimulatedJob:
    """A message at its node, and what became of it."""

    UNSAVED: ClassVar = ("work",)

    number: int
    message: Message
    node: Node
    dispatch: Dispatch
    begun_s: float
    ready_s: float = 0.0
    work: Pending[ClientResult] | None = None
    content: RecordDict | Error | None = None
    reply_bytes: int = 0
    leaves_s: float = math.inf


class Nodes:
    """All nodes of a fleet. Memory is taken only by those that work or have a Context state.

    Of every other node that has worked its number of jobs is kept.
    """

    UNSAVED: ClassVar = ("ids", "attributes", "_fleet", "_is_always_online", "_profile")

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.ids = fleet.node_ids
        self._is_always_online = fleet.is_always_online
        self._profile = lru_cache(_PROFILES)(fleet.profile)
        self.attributes = lru_cache(_PROFILES)(self._attributes)
        """Node id -> what is known of the node; see `fedagent.nodes.geography`."""
        self._kept: dict[int, Node] = {}
        self._jobs_begun: dict[int, int] = {}

    def after_restore(self) -> None:
        """Look up anew what nodes are; only what they do is in a checkpoint."""
        for node in self._kept.values():
            node.profile = self._profile(node.index)

    def get(self, node_id: int) -> Node:
        """Return a node to give work to."""
        node = self._kept.get(node_id)
        if node is None:
            index = self.ids.index(node_id)
            jobs_begun = self._jobs_begun.pop(node_id, 0)
            node = self._kept[node_id] = Node(index, node_id, self._profile(index), jobs_begun)
        return node

    def let_go(self, node: Node, now_s: float) -> None:
        """Forget a node that has nothing to do and nothing to remember but how much it did."""
        is_busy = node.current or node.waiting or max(node.downloaded_s, node.uploaded_s) > now_s
        if not is_busy and not node.state and self._kept.get(node.node_id) is node:
            del self._kept[node.node_id]
            self._jobs_begun[node.node_id] = node.jobs_begun

    def _attributes(self, node_id: int) -> Mapping[str, float]:
        index = self.ids.index(node_id)
        return MappingProxyType(self._profile(index).attributes(index))

    @property
    def is_always_online(self) -> bool:
        """Whether no node ever leaves."""
        return self._is_always_online

    def is_online(self, node_id: int, now_s: float) -> bool:
        """Return whether a node is online at `now_s`."""
        return self._profile(self.ids.index(node_id)).is_online(now_s)

    def next_change_s(self, now_s: float) -> float:
        """Return when the next node comes or goes; every node is asked."""
        return min(self._profile(i).next_change_s(now_s) for i in range(len(self.ids)))


class Online(Population):
    """The nodes of a fleet that are online at one moment."""

    def __init__(self, nodes: Nodes, at_s: float) -> None:
        self.registered = nodes.ids
        self._nodes, self._at_s = nodes, at_s

    def __contains__(self, node_id: int) -> bool:
        return node_id in self.registered and self._nodes.is_online(node_id, self._at_s)
