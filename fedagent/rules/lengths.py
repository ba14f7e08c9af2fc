"""Lengths and products of (P,) vectors in float64: the square of a large float32 overflows."""

import math

import torch

from fedagent.model import Vector, blocks


def products(a: Vector, b: Vector) -> tuple[float, float, float]:
    """Return |a|^2, a . b and |b|^2."""
    first = mixed = second = 0.0
    for x, y in blocks(a, b):
        x64, y64 = x.double(), y.double()
        first += float(x64 @ x64)
        mixed += float(x64 @ y64)
        second += float(y64 @ y64)
    return first, mixed, second


def norm(vector: Vector) -> float:
    """Return |vector|."""
    lengths = (torch.linalg.vector_norm(block, dtype=torch.float64) for (block,) in blocks(vector))
    return math.hypot(*map(float, lengths))


def stretch(vector: torch.Tensor, factor: float) -> None:
    """Multiply a vector in place, also by a factor that its dtype cannot hold."""
    for (block,) in blocks(vector):
        block.copy_(block.double().mul_(factor))
