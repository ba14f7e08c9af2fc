"""The physics that nodes, validation and test have: drawn by seed, each from a stream of its own.

Every quantity is gymnasium's own times a factor, whose logarithm is uniform within
``Machines.factor_ranges``. Shape legend: Q quantities.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from clients.reinforcement.environments import MACHINES


class Starts(NamedTuple):
    """Where B machines begin, a batch. float32; D numbers in a state."""

    factors: torch.Tensor
    """(B, Q) of their physics"""
    states: torch.Tensor
    """(B, D)"""


class Physics(NamedTuple):
    """Factors of all physics, float32."""

    nodes: torch.Tensor
    """(P, Q), one physics per node"""
    validation: torch.Tensor
    """(P, V, Q), V physics per node that no node trains on"""
    test: torch.Tensor
    """(K, Q), physics that neither training nor validation saw"""


@lru_cache(maxsize=4)
def load(
    environment: str, num_nodes: int, num_validation: int, num_test: int, seed: int
) -> Physics:
    """Draw the physics; the first nodes' are the same however many there are.

    Parameters
    ----------
    environment : a key of `MACHINES`.
    num_nodes, num_validation, num_test : P, V and K, >= 1.
    seed : decides everything.
    """
    low, high = np.log(np.array(list(MACHINES[environment].factor_ranges.values()))).T

    def draw(stream: int, *shape: int) -> torch.Tensor:
        rng = np.random.default_rng((seed, stream))
        return torch.from_numpy(np.exp(rng.uniform(low, high, (*shape, len(low))))).float()

    return Physics(draw(0, num_nodes), draw(1, num_nodes, num_validation), draw(2, num_test))
