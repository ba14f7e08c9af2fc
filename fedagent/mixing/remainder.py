r"""What staleness takes from the neighbours of a node, and leaves to the node itself.

    w_ik = c_ik s(tau_ik)                        of the newest update of each i != k
    w_kk = c_kk + sum_{i != k} (c_ik - w_ik)    so that    sum_i w_ik = sum_i c_ik   at every moment

The second term is the remainder of node k. It has a bound, 1 - c_kk for stochastic weights, however
often a fast neighbour sends between two updates of a slow node: a newer loss replaces the older.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedagent.mixing.matrix import Floats, Indices


class Remainders:
    """The remainder of every node, and which neighbour each part of it comes from.

    Memory: one number per node, and one per neighbour once it was heard.

    Attributes
    ----------
    of : (K,) the remainder of every node.
    """

    def __init__(self, num_nodes: int) -> None:
        self.of: Floats = np.zeros(num_nodes)
        self._lost: dict[int, tuple[Indices, Floats]] = {}

    def lose(self, sender: int, receivers: Indices, lost: Floats) -> None:
        """Leave c_ik - w_ik of the newest update of `sender` to each of its `receivers`."""
        if sender in self._lost:
            old_receivers, old = self._lost[sender]
            self.of[old_receivers] -= old
        self.of[receivers] += lost
        self._lost[sender] = receivers, lost

    def state_dict(self) -> dict[str, Any]:
        """Return the remainders and their parts."""
        return {
            "of": self.of.tolist(),
            "lost": {str(i): (k.tolist(), c.tolist()) for i, (k, c) in self._lost.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the remainders."""
        self.of = np.array(state["of"], np.float64)
        self._lost = {
            int(i): (np.array(k, np.int64), np.array(c, np.float64))
            for i, (k, c) in state["lost"].items()
        }
