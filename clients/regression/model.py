"""The model of the application: x -> x theta, from theta = 0, in double precision."""

import torch
from torch import nn


def build(dimension: int) -> nn.Linear:
    """Return a fresh model with D = `dimension` weights and no bias."""
    model = nn.Linear(dimension, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    return model
