"""The latest vector of every node, and the sum of them all."""

from collections.abc import Mapping
from typing import Any

import torch

from fedagent.model import blocks


class Table:
    """One (P,) vector per node and their sum, which costs O(P) per change.

    The sum only ever changes by differences, so it is kept in float64: in float32 its rounding
    errors would add up over a long run, with nothing that ever takes them out again. Sums of two
    dtypes are made block by block, because torch converts whole operands first.
    """

    def __init__(self) -> None:
        self._vectors: dict[int, torch.Tensor] = {}
        self._sum: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, node_id: int) -> torch.Tensor | None:
        """Return the vector of a node, or None."""
        return self._vectors.get(node_id)

    def put(self, node_id: int, vector: torch.Tensor) -> None:
        """Replace the vector of a node; the table owns `vector` from now on."""
        if self._sum is None:
            self._sum = torch.zeros_like(vector, dtype=torch.float64)
        replaced = [self._vectors[node_id]] if node_id in self._vectors else []
        for total, new, *old in blocks(self._sum, vector, *replaced):
            if old:
                total.sub_(old[0])
            total.add_(new)
        self._vectors[node_id] = vector

    def drop(self, node_id: int) -> None:
        """Forget a node."""
        assert self._sum is not None
        for total, vector in blocks(self._sum, self._vectors.pop(node_id)):
            total.sub_(vector)

    def add_sum_to(self, target: torch.Tensor, alpha: float) -> None:
        """Add alpha times the sum of all vectors to `target`."""
        if self._vectors and self._sum is not None:
            for moved, total in blocks(target, self._sum):
                moved.add_(total, alpha=alpha)

    def state_dict(self) -> dict[str, Any]:
        """Return vectors and sum."""
        return {
            "vectors": {str(node_id): vector.clone() for node_id, vector in self._vectors.items()},
            "sum": None if self._sum is None else self._sum.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore vectors and sum."""
        self._vectors = {int(node_id): v.clone() for node_id, v in state["vectors"].items()}
        self._sum = None if state["sum"] is None else state["sum"].clone()
