"""The contract of a source of weights."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from fedagent.mixing.matrix import MixingMatrix


class Weights(Protocol):
    """Where the c_ik come from: a fixed `MixingMatrix`, or one that is learned."""

    num_nodes: int

    @property
    def matrix(self) -> MixingMatrix:
        """The weights that hold now; another object when they have changed."""

    def observe(self, sender: int, delta: torch.Tensor) -> None:
        """Look at the (P,) update of a node."""

    def metrics(self) -> Mapping[str, float]:
        """Return numbers worth recording."""

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what was learned."""
