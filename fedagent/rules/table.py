"""The latest vector of every node, and the sum of them all."""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.model import blocks

_MOST_CHANGES = 1000  # and 10 for each vector: making the sum anew stays a tenth of the work


class Table:
    """One (P,) vector per node and their sum, which costs O(P) per change.

    The sum changes by differences, whose rounding errors add up: after so many changes, some 1e-6
    of it. Then it is made anew.
    """

    def __init__(self) -> None:
        self._vectors: dict[int, torch.Tensor] = {}
        self._sum: torch.Tensor | None = None
        self._num_changes = 0

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, node_id: int) -> torch.Tensor | None:
        """Return the vector of a node, or None."""
        return self._vectors.get(node_id)

    def put(self, node_id: int, vector: torch.Tensor) -> None:
        """Replace the vector of a node; the table owns `vector` from now on."""
        if self._sum is None:
            self._sum = torch.zeros_like(vector)
        replaced = [self._vectors[node_id]] if node_id in self._vectors else []
        for total, new, *old in blocks(self._sum, vector, *replaced):
            if old:
                total.sub_(old[0])
            total.add_(new)
        self._vectors[node_id] = vector
        self._changed()

    def drop(self, node_id: int) -> None:
        """Forget a node."""
        assert self._sum is not None
        self._sum.sub_(self._vectors.pop(node_id))
        self._changed()

    def add_sum_to(self, target: torch.Tensor, alpha: float) -> None:
        """Add alpha times the sum of all vectors to `target`."""
        if self._vectors and self._sum is not None:
            target.add_(self._sum, alpha=alpha)

    def _changed(self) -> None:
        """Count a change; make the sum anew after many."""
        assert self._sum is not None
        self._num_changes += 1
        if self._num_changes >= _MOST_CHANGES + 10 * len(self):
            self._num_changes = 0
            self._sum.zero_()
            for vector in self._vectors.values():
                self._sum.add_(vector)

    def state_dict(self) -> dict[str, Any]:
        """Return vectors and sum, and how often that has changed."""
        return {
            "vectors": {str(node_id): vector.clone() for node_id, vector in self._vectors.items()},
            "sum": None if self._sum is None else self._sum.clone(),
            "changes": self._num_changes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore vectors and sum."""
        self._vectors = {int(node_id): v.clone() for node_id, v in state["vectors"].items()}
        self._sum = None if state["sum"] is None else state["sum"].clone()
        self._num_changes = int(state["changes"])
