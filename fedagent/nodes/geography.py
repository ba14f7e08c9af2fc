"""Where nodes are: regions, the links between them, and how far a message travels.

A node belongs to a region by position, by a list, by an attribute or by latency.

What is known of a node comes as attributes, name -> number. A simulated fleet knows
``partition-id``, ``region``, ``latency-s`` (seconds, there and back) and ``seconds-per-step``.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated

from fedagent.errors import Interval, check_fields, require

Attributes = Mapping[str, float]


class Regions(ABC):
    """A division of the nodes into `count` regions, numbered from 0."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many regions there are, >= 1."""

    @abstractmethod
    def of(self, node_id: int, attributes: Attributes) -> int | None:
        """Return the region of a node; None if nothing says where it is."""

    def _existing(self, region: int) -> int | None:
        return region if 0 <= region < self.count else None


class Blocks(Regions):
    """Contiguous blocks of equal size: partition i of n belongs to region floor(i R / n).

    Parameters
    ----------
    num_regions : R >= 1.
    num_nodes : n >= R.
    """

    def __init__(self, num_regions: int, num_nodes: int) -> None:
        require(
            1 <= num_regions <= num_nodes,
            f"Blocks: num_regions={num_regions} must lie between 1 and num_nodes={num_nodes}: "
            "every region needs a node.",
        )
        self._num_regions, self._num_nodes = num_regions, num_nodes

    @property
    def count(self) -> int:
        """R."""
        return self._num_regions

    def of(self, node_id: int, attributes: Attributes) -> int | None:
        """Return the block that the node's partition lies in."""
        if "partition-id" not in attributes:
            return None
        return self._existing(int(attributes["partition-id"]) * self.count // self._num_nodes)


class Listed(Regions):
    """Written down: one list per region.

    Parameters
    ----------
    members : the nodes of region 0, of region 1, ..., by partition or node id.
    key : "partition-id", or "node-id" for the ids that Flower gave (those of a real fleet).
    """

    def __init__(self, members: Sequence[Sequence[int]], key: str = "partition-id") -> None:
        require(bool(members), "Listed: members is empty; name the nodes of at least one region.")
        self._members, self._key = members, key
        times = Counter(node for region in members for node in region)
        twice = sorted(node for node, count in times.items() if count > 1)
        require(not twice, f"Listed: {twice} are in more than one region; a node has one edge.")

    @property
    def count(self) -> int:
        """How many lists there are."""
        return len(self._members)

    @cached_property
    def _region_of(self) -> dict[int, int]:
        return {node: r for r, members in enumerate(self._members) for node in members}

    def of(self, node_id: int, attributes: Attributes) -> int | None:
        """Return the list that names the node."""
        known = {**attributes, "node-id": node_id}.get(self._key)
        return None if known is None else self._region_of.get(int(known))


class ByAttribute(Regions):
    """What the node says of itself.

    Parameters
    ----------
    num_regions : R >= 1.
    key : the attribute that holds a number from 0 to R - 1.
    """

    def __init__(self, num_regions: int, key: str = "region") -> None:
        require(num_regions >= 1, f"ByAttribute: num_regions={num_regions} must be at least 1.")
        self._num_regions, self._key = num_regions, key

    @property
    def count(self) -> int:
        """R."""
        return self._num_regions

    def of(self, node_id: int, attributes: Attributes) -> int | None:
        """Return the attribute's value."""
        return self._existing(int(attributes[self._key])) if self._key in attributes else None


class ByMeasure(Regions):
    """How far away a node is, or how slow: region r holds limits[r - 1] up to below limits[r].

    Parameters
    ----------
    limits : increasing; R - 1 limits make R regions.
    key : the attribute that is measured: ``latency-s``, ``seconds-per-step``.
    """

    def __init__(self, limits: Sequence[float], key: str = "latency-s") -> None:
        require(
            all(map(math.isfinite, limits)) and all(a < b for a, b in pairwise(limits)),
            f"ByMeasure: limits={list(limits)} must be finite and increase.",
        )
        self._limits, self._key = list(limits), key

    @property
    def count(self) -> int:
        """One more than there are limits."""
        return len(self._limits) + 1

    def of(self, node_id: int, attributes: Attributes) -> int | None:
        """Return the interval that the attribute lies in."""
        if self._key not in attributes:
            return None
        return bisect_right(self._limits, attributes[self._key])


@dataclass(frozen=True)
class Links:
    """Latency and bandwidth between a node, or an edge, and what is above it.

    Attributes
    ----------
    latency_s : of an exchange, there and back together, >= 0.
    download_bytes_per_s, upload_bytes_per_s : > 0; infinite by default. Each link has its own: a
        line that many nodes share is not modelled.
    """

    latency_s: Annotated[float, Interval("[0, inf)")] = 0.0
    download_bytes_per_s: Annotated[float, Interval("(0, inf]")] = math.inf
    upload_bytes_per_s: Annotated[float, Interval("(0, inf]")] = math.inf

    def __post_init__(self) -> None:
        check_fields(self)

    def of_node(self, seed: int, index: int) -> "Links":
        """Return what node `index` has: these. A subclass may draw them; (seed, index) decides."""
        return self

    def up_s(self, num_bytes: int) -> float:
        """Return the seconds that `num_bytes` take on their way up."""
        return self.latency_s / 2 + num_bytes / self.upload_bytes_per_s

    def down_s(self, num_bytes: int) -> float:
        """Return the seconds that `num_bytes` take on their way down."""
        return self.latency_s / 2 + num_bytes / self.download_bytes_per_s

    def then(self, further: "Links") -> "Links":
        """Return this link and `further` one after the other: the narrower one sets the pace."""
        return Links(
            self.latency_s + further.latency_s,
            min(self.download_bytes_per_s, further.download_bytes_per_s),
            min(self.upload_bytes_per_s, further.upload_bytes_per_s),
        )


@dataclass(frozen=True)
class Geography:
    """Regions with slow links between them. Without one, all nodes are in one place.

    Parameters
    ----------
    regions : which region a node is in.
    between : a link between two regions, in addition to the nodes' own.
    has_edges : whether every region has a proxy of its own, so that only the proxies talk over long
        distances; otherwise there is one proxy, in region 0.
    """

    regions: Regions
    between: Links
    has_edges: bool = False

    def region(self, node_id: int, attributes: Attributes) -> int:
        """Return the region of a node; 0 if nothing says where it is.

        Parameters
        ----------
        node_id, attributes : the node, and what is known of it alone: its latency and speed
            without the links between regions.
        """
        return self.regions.of(node_id, attributes) or 0

    def is_remote(self, region: int) -> bool:
        """Return whether the nodes of `region` are in another one than their proxy."""
        return not self.has_edges and region != 0

    def path(self, region: int, links: Links) -> Links:
        """Return what connects a node of `region` to its proxy, beginning with its own `links`."""
        return links.then(self.between) if self.is_remote(region) else links
