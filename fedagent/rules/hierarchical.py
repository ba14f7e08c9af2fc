r"""Hierarchical: a proxy in every region, and a root above them that never waits for one.

    in region r, on an update:    e_r moves by the region's rule; its nodes train e_r
    after K of them:              u_r, what e_r learned since it last sent, travels up
    at the root, on u_r:          x moves by the root's rule; x travels back to region r
    in region r, on x:            e_r <- (1 - a) e_r + a x, but what the root was not sent yet
                                  stays as it is (see `fedagent.rules.edge`)

Kim et al., "HALoS: Hierarchical Asynchronous Local SGD over Slow Networks", arXiv 2506.04531, is
Delayed Nesterov at both levels with K = 32, a = 0.25 (edges: server_learning_rate 0.2, momentum
0.9, period 16; root: 0.15, 0.5, 2). Any rule works at either level; FedBuff at both is plain
hierarchical FedBuff. An edge's delta is an update like any other to the root's rule: its node id is
the region's number, its num_examples the sum over its updates, its staleness the versions that the
root has published since the edge last merged one.

A region goes on while its delta and the answer are under way, and sends again at the earliest when
its last delta has arrived. In the authors' code it does when the answer is there, and what it
learned meanwhile is mixed with x too, and never sent. Without delay both are the same.

Staleness in a region counts the versions its edge published since the dispatch.

Memory: per region 3 P floats and those of its rule, and 2 P for each thing under way.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.nodes.geography import Links, Regions
from fedagent.rules.base import Rule
from fedagent.rules.edge import Edge, Transfer
from fedagent.update import Rejection, Update


class Hierarchical(Rule):
    """Edges under a root. ``model.vector`` is the root's model.

    Parameters
    ----------
    regions : which region a node belongs to; nodes it cannot place belong to the root's.
    edge : builds the rule of a region; called once per region, and once to ask what it allows.
    root : the root's rule.
    send_every : K >= 1, updates between two deltas of a region.
    merge_weight : a in (0, 1], the root's share when an edge merges its model.
    links : between an edge and the root. Without any, both are in one place and no time passes.
    root_region : where the root is; that region's edge is beside it.
    """

    def __init__(
        self,
        regions: Regions,
        edge: Callable[[], Rule],
        root: Rule,
        send_every: int = 32,
        merge_weight: float = 0.25,
        links: Links | None = None,
        root_region: int = 0,
    ) -> None:
        require(send_every >= 1, f"Hierarchical: send_every={send_every} must be at least 1.")
        require(
            0 < merge_weight <= 1,
            f"Hierarchical: merge_weight={merge_weight} must lie in (0, 1]: with 0 a region would "
            "never hear of the others.",
        )
        require(
            0 <= root_region < regions.count,
            f"Hierarchical: root_region={root_region} does not exist; there are {regions.count} "
            "regions, numbered from 0.",
        )
        one_edge = edge()
        require(
            not one_edge.needs_clock,
            f"Hierarchical: a region's {type(one_edge).__name__} with buffer_size=None never "
            "publishes by itself: give it a size, or wrap it in Periodic.",
        )
        for rule in (one_edge, root):
            require(
                not rule.is_opaque,
                f"Hierarchical: only {type(rule).__name__} understands its model, so regions "
                "cannot merge theirs: use it without regions.",
            )
            require(
                not rule.needs_groups,
                f"Hierarchical: {type(rule).__name__} waits for groups of nodes, which are not all "
                "in one region: use it without regions.",
            )
            require(
                rule.allows_filters,
                f"Hierarchical: what {type(rule).__name__} promises every single node does not "
                "hold where regions merge what their nodes have sent: use it without regions.",
            )
        self._regions, self._build_edge, self.root = regions, edge, root
        self._allows_prefetch = one_edge.allows_prefetch
        self.send_every, self.merge_weight = send_every, merge_weight
        self._links, self._root_region = links or Links(), root_region
        self._round_size = 0
        self._forget()

    def _forget(self) -> None:
        self.edges: list[Edge] = []
        self._region_of: dict[int, int] = {}
        self._unpublished = self._at_root = self._bytes_between_regions = 0
        self._root_version = 0
        self._restored: Mapping[str, Any] | None = None

    def on_start(self, model: FlatModel) -> None:
        """Give every region version 0, or what it had when the run was left."""
        self.edges = [Edge(self._build_edge(), model) for _ in range(self._regions.count)]
        self._num_bytes = model.spec.num_bytes
        if self._restored is not None:
            for edge, state in zip(self.edges, self._restored["edges"], strict=True):
                edge.load_state_dict(state)
            self._restored = None
        # The root's model with the versions that the root has made: a clock publishes fewer.
        self._root_model = copy.copy(model)
        self._root_model.version = self._root_version
        self.root.on_start(self._root_model)
        for edge in self.edges:
            edge.rule.on_start(edge.model)
        if self._round_size:  # of a round that is under way
            self.begin_round(self._round_size)

    def begin_round(self, num_updates: int) -> None:
        """Tell every region its even share of a round, and the root how many deltas that makes."""
        self._round_size = num_updates
        for edge in self.edges:
            edge.rule.begin_round(max(1, num_updates // len(self.edges)))
        self.root.begin_round(max(1, num_updates // self.send_every))

    # --- what a node belongs to ---------------------------------------------------------------

    def register_node(self, node_id: int, attributes: Mapping[str, float]) -> None:
        """Find the node's region, once."""
        if node_id not in self._region_of:
            region = self._regions.of(node_id, attributes)
            self._region_of[node_id] = self._root_region if region is None else region
        self._edge_of(node_id).rule.register_node(node_id, attributes)

    def _edge_of(self, node_id: int) -> Edge:
        return self.edges[self._region_of[node_id]]

    def model_for(self, node_id: int) -> torch.Tensor:
        """Return the newest version of the node's edge."""
        return self._edge_of(node_id).published

    def version_for(self, node_id: int) -> int:
        """Return how often the node's edge has published."""
        return self._edge_of(node_id).model.version

    def rejection(self, update: Update) -> Rejection | None:
        """Ask the region's rule."""
        return self._edge_of(update.node_id).rule.rejection(update)

    @property
    def allows_prefetch(self) -> bool:
        """What the regions' rule says."""
        return self._allows_prefetch

    @property
    def allows_clock(self) -> bool:
        """What the root's rule says."""
        return self.root.allows_clock

    @property
    def needs_clock(self) -> bool:
        """What the root's rule says."""
        return self.root.needs_clock

    def job_config(self, node_id: int) -> Mapping[str, int]:
        """Ask the region's rule."""
        return self._edge_of(node_id).rule.job_config(node_id)

    # --- what moves ---------------------------------------------------------------------------

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Let the region's rule have the update; the root hears of it later."""
        self._unpublished += 1
        edge = self._edge_of(update.node_id)
        edge.receive(update)
        self._send_if_ready(edge, update.arrived_s)
        return False

    def next_due_s(self) -> float:
        """Return when the next transfer arrives or a rule has something to do."""
        return min(self.root.next_due_s(), *(edge.due_s() for edge in self.edges), math.inf)

    def advance(self, model: FlatModel, now_s: float) -> bool:
        """Deliver the earliest transfer, of several the lowest region's, or let a rule advance."""
        edge = min(self.edges, key=Edge.due_s)  # of equals the first
        due_s, is_published = edge.due_s(), False
        if self.root.next_due_s() < due_s:
            return self._count(self.root.advance(self._root_model, now_s))
        if edge.coming_down and edge.coming_down[0].due_s == due_s:
            edge.merge(self.merge_weight)
        elif edge.going_up and edge.going_up.due_s == due_s:
            transfer, edge.going_up = edge.going_up, None
            is_published = self._deliver(edge, transfer, now_s)
        else:
            edge.advance(now_s)
        self._send_if_ready(edge, now_s)
        return is_published

    def flush(self, model: FlatModel) -> bool:
        """Apply what the root's rule holds; regions publish when theirs says so."""
        return self._count(self.root.flush(self._root_model))

    def _send_if_ready(self, edge: Edge, now_s: float) -> None:
        if edge.going_up is None and edge.num_updates >= self.send_every:
            edge.send(now_s + self._travel_s(edge, self._links.up_s))

    def _deliver(self, edge: Edge, transfer: Transfer, now_s: float) -> bool:
        """Let the root's rule have a region's delta, and send the region the root's model."""
        assert transfer.base is not None
        model = self._root_model
        update = Update(
            node_id=self.edges.index(edge),
            delta=transfer.vector.clone(),  # a rule may use it as scratch
            base=transfer.base,
            staleness=model.version - transfer.version,
            num_examples=transfer.num_examples,
            carried=transfer.carried,
            arrived_s=now_s,
        )
        is_refused, is_published = self.root.rejection(update) is not None, False
        if not is_refused:
            self._at_root += transfer.num_updates
            is_published = self._count(self.root.receive(model, update))
        leaves_s = max([now_s, *(earlier.due_s for earlier in edge.coming_down)])
        answer = Transfer(
            leaves_s + self._travel_s(edge, self._links.down_s),
            vector=model.vector.clone(),
            version=model.version,
            is_refusal=is_refused,
            carried=dict(model.carried),
            num_updates=transfer.num_updates,
            num_examples=transfer.num_examples,
        )
        edge.coming_down.append(answer)
        return is_published

    def _count(self, is_published: bool) -> bool:
        if is_published:
            self._root_version += 1
            self._root_model.version = self._root_version
            self._unpublished -= self._at_root
            self._at_root = 0
        return is_published

    def _travel_s(self, edge: Edge, link: Callable[[int], float]) -> float:
        if edge is self.edges[self._root_region]:
            return 0.0
        self._bytes_between_regions += self._num_bytes
        return link(self._num_bytes)

    # --- accounts -----------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Updates of nodes that no published root version holds yet."""
        return self._unpublished

    @property
    def lost(self) -> Mapping[str, int]:
        """What root and edges have lost."""
        rules = [self.root, *(edge.rule for edge in self.edges)]
        return sum((Counter(rule.lost) for rule in rules), Counter())

    @property
    def bytes_between_regions(self) -> int:
        """Bytes of deltas and models that edges and the root have sent each other."""
        return self._bytes_between_regions

    def state_dict(self) -> dict[str, Any]:
        """Return the root's and every region's state, with what is under way between them."""
        return {
            "root": self.root.state_dict(),
            "edges": [edge.state_dict() for edge in self.edges],
            "region_of": {str(node_id): region for node_id, region in self._region_of.items()},
            "root_version": self._root_version,
            "counts": [self._unpublished, self._at_root, self._bytes_between_regions],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; regions that had begun go on at `on_start`."""
        self._forget()
        self.root.load_state_dict(state["root"])
        self._region_of = {int(node_id): region for node_id, region in state["region_of"].items()}
        self._root_version = int(state["root_version"])
        self._unpublished, self._at_root, self._bytes_between_regions = state["counts"]
        self._restored = state if state["edges"] else None
