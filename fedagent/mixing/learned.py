r"""Weights learned from the nodes' updates, so that like helps like.

    u_i      sum of the first W updates of node i (`warmup`), as a sketch of D numbers
    a_ij     <u_i, u_j> / (|u_i| |u_j|)                                    their similarity
    groups   average linkage of a_ij, cut at `threshold`
    c_ik     1 / |group of k| if i and k are in the same group, else 0

Until every node has sent W updates everybody is one group, c_ik = 1/K: measured from one model, the
updates differ by the data and by nothing else. The cosine of updates as a sign of alike data is
that of Sattler, Mueller, Samek (clustered federated learning, arXiv 1910.01991); one hierarchical
clustering after a common warm-up that of Briggs, Fan, Andras (arXiv 2004.11791). Nodes that are not
heard in time hold nobody up: after 2 W K updates the others are grouped without them, and a late
node finds its group with its W-th update. Later updates are not looked at: near the optimum of a
group those of its members cancel, and no longer say who is alike.

Equal weights inside a group, rather than weights that fall with a_ij: the models of a group stay
the same model, the average of what its members send, and alike nodes help each other in full.

Memory: K D floats, P integers. Time: P additions per update of the warm-up; O(K^2 D) and at most K
merges of O(K^2) for the clustering.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fedagent.errors import require
from fedagent.mixing.clusters import average_linkage
from fedagent.mixing.matrix import MixingMatrix
from fedagent.mixing.sketch import Sketch
from fedagent.mixing.topologies import grouped


class LearnedMixing:
    """Mixing inside groups that show in the updates.

    Parameters
    ----------
    num_nodes : K >= 1.
    threshold : similarity in [-1, 1] below which groups stay apart; 1 keeps every node alone.
    warmup : W >= 1, updates of each node that are compared.
    sketch_size : D >= 1; the similarity is known to about 1 / sqrt(D).
    seed : of the sketch.

    Attributes
    ----------
    groups : (K,) the group of every node; one group until the clustering.
    """

    def __init__(
        self,
        num_nodes: int,
        threshold: float = 0.2,
        warmup: int = 3,
        sketch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        require(num_nodes >= 1, f"LearnedMixing: num_nodes={num_nodes} must be at least 1.")
        require(
            -1.0 <= threshold <= 1.0,
            f"LearnedMixing: threshold={threshold} must lie in [-1, 1]: it is a cosine.",
        )
        require(warmup >= 1, f"LearnedMixing: warmup={warmup} must be at least 1.")
        require(sketch_size >= 1, f"LearnedMixing: sketch_size={sketch_size} must be at least 1.")
        self.num_nodes = num_nodes
        self.threshold = threshold
        self.warmup = warmup
        self._seed = seed
        self._sketch: Sketch | None = None
        self._sums = torch.zeros(num_nodes, sketch_size, dtype=torch.float64)
        self._num_updates = np.zeros(num_nodes, np.int64)
        self.groups = np.zeros(num_nodes, np.int64)
        self._matrix = grouped(self.groups.tolist())

    @property
    def matrix(self) -> MixingMatrix:
        """The weights that hold now."""
        return self._matrix

    def observe(self, sender: int, delta: torch.Tensor) -> None:
        """Add the (P,) update to those of its node; look at the groups when its warm-up is over."""
        self._num_updates[sender] += 1
        is_warming_up = self._num_updates[sender] <= self.warmup
        if is_warming_up:
            if self._sketch is None:
                self._sketch = Sketch(len(delta), self._sums.shape[1], self._seed)
            self._sums[sender] += self._sketch.of(delta)
        patience = 2 * self.warmup * self.num_nodes - self._num_updates.sum()
        is_everybody_heard = bool((self._num_updates >= self.warmup).all())
        if patience == 0 or (is_warming_up and (patience < 0 or is_everybody_heard)):
            self._regroup()

    def similarity(self) -> torch.Tensor:
        """Return the (K, K) cosines a_ij; 0 for a node that was never heard."""
        directions = torch.nn.functional.normalize(self._sums, dim=1)
        return directions @ directions.T

    def metrics(self) -> dict[str, float]:
        """Return how many groups there are."""
        return {"num-groups": float(self.groups.max() + 1)}

    def _regroup(self) -> None:
        groups = average_linkage(self.similarity().numpy(), self.threshold)
        if not np.array_equal(groups, self.groups):
            self.groups = groups
            self._matrix = grouped(groups.tolist())

    def state_dict(self) -> dict[str, Any]:
        """Return sums and groups; the sketch follows from the seed."""
        return {
            "sums": self._sums.clone(),
            "num_updates": self._num_updates.tolist(),
            "groups": self.groups.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore sums and groups."""
        self._sums = state["sums"].clone()
        self._num_updates = np.array(state["num_updates"], np.int64)
        self.groups = np.array(state["groups"], np.int64)
        self._matrix = grouped(self.groups.tolist())
