"""A model that only its rule understands: named arrays with which nothing is computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fedagent.arrays import NDArray
from fedagent.model import FlatModel, ModelSpec


class OpaqueModel(FlatModel):
    """Arrays of any form, which may be another one in every version: P = 0, nothing is carried.

    Its `spec` names no array; that is how admission knows that a reply must be taken whole.

    Attributes
    ----------
    contents : the arrays by name; a rule replaces all of them.
    """

    def __init__(self, contents: Mapping[str, NDArray]) -> None:
        super().__init__(ModelSpec(()), {})
        self.contents = dict(contents)

    def arrays(self) -> dict[str, NDArray]:
        """Return the arrays."""
        return self.contents

    def state_dict(self) -> dict[str, Any]:
        """Return the version and the arrays, which must hold numbers."""
        tensors = {name: torch.from_numpy(a.copy()) for name, a in self.contents.items()}
        return {"version": self.version, "contents": tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.version = int(state["version"])
        self.contents = {name: np.array(t.numpy()) for name, t in state["contents"].items()}
