r"""Synthetic regression data. Shape legend: N examples, D features.

x ~ N(0, diag(lambda)),  lambda_d = 1 / d
w_k = w + difference v_k,  |v_k| = 1                   the true model of node k; w the common one
linear     y = x w_k + noise N(0, 1)
logistic   y = 1 with probability 1 / (1 + exp(-x w_k)), else 0
"""

from typing import NamedTuple

import numpy as np
import torch

_COMMON, _TRAIN, _VALIDATION = range(3)


class Examples(NamedTuple):
    """Double-precision features and targets."""

    features: torch.Tensor
    """(N, D)"""
    targets: torch.Tensor
    """(N,)"""


def generate(
    kind: str,
    node: int,
    num_examples: int,
    dimension: int,
    noise: float,
    difference: float,
    seed: int,
    *,
    is_validation: bool = False,
) -> Examples:
    """Draw a node's training or validation examples; they follow from (seed, node)."""
    w = np.random.default_rng([seed, _COMMON]).normal(size=dimension)
    own = np.random.default_rng([seed, _COMMON, node + 1]).normal(size=dimension)
    w = w + difference * own / np.linalg.norm(own)
    rng = np.random.default_rng([seed, _VALIDATION if is_validation else _TRAIN, node + 1])
    features = rng.normal(size=(num_examples, dimension)) / np.sqrt(np.arange(1, dimension + 1))
    scores = features @ w
    if kind == "linear":
        targets = scores + noise * rng.normal(size=num_examples)
    else:
        targets = (rng.random(num_examples) < 1 / (1 + np.exp(-scores))).astype(np.float64)
    return Examples(torch.from_numpy(features), torch.from_numpy(targets))
