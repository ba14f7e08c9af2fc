"""The reference quadratic of the asynchronous SGD literature, and the best time possible on it.

    f(x) = x'Ax/2 - b'x,  A = tridiag(-1, 2, -1)/4 (200 x 200),  b = -e_1/4,  x_0 = sqrt(200) e_1

A job is one stochastic gradient with Gaussian noise of deviation 0.01 per coordinate; the target is
|grad f|^2 <= 1e-3; 100 nodes, all of them always busy. The set-up is that of Tyurin and Richtarik
(arXiv 2305.12387) and of Maranjyan, Tyurin, Richtarik (arXiv 2501.16168).
"""

import math
from collections.abc import Callable

import numpy as np

DIMENSION, NODES, NOISE, TARGET = 200, 100, 0.01, 1e-3
BATCH = round(DIMENSION * NOISE**2 / TARGET)  # sigma^2 / eps: what theory gives Rennala

FLEETS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "equal": lambda rng: np.ones(NODES),
    "sqrt(i)": lambda rng: np.sqrt(np.arange(1, NODES + 1)),
    "i": lambda rng: np.arange(1.0, NODES + 1),
    "lognormal": lambda rng: np.exp(1.5 * rng.standard_normal(NODES)),
    "half-normal": lambda rng: np.maximum(1e-3, np.abs(rng.standard_normal(NODES))),
    "pareto": lambda rng: np.minimum(60.0, 1 + rng.pareto(1.0, NODES)),
    "two-class": lambda rng: np.where(np.arange(NODES) % 2, 1.0, 25.0),
    "straggler": lambda rng: np.where(np.arange(NODES) < NODES - 1, 1.0, 1000.0),
}
"""Seconds per gradient of every node, as the literature draws them."""


class Quadratic:
    """Minimise f; the score is -|grad f(x)|^2."""

    num_nodes = NODES
    weights = np.ones(NODES)
    target = -TARGET

    def initial(self, seed: int) -> np.ndarray:
        """Return x_0, whatever the seed."""
        x = np.zeros(DIMENSION)
        x[0] = math.sqrt(DIMENSION)
        return x

    def arrays(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Return the one array."""
        return {"x": vector}

    def work(
        self, node: int, start: np.ndarray, steps: int, rate: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Return -rate times a stochastic gradient; a job is one step."""
        return (gradient(start) + NOISE * rng.standard_normal(DIMENSION)) * -rate

    def score(self, vector: np.ndarray) -> float:
        """Return -|grad f|^2."""
        g = gradient(vector)
        return -float(g @ g)


def gradient(x: np.ndarray) -> np.ndarray:
    """Return the exact gradient of f at the (200,) point `x`."""
    g = 0.5 * x
    g[1:] -= 0.25 * x[:-1]
    g[:-1] -= 0.25 * x[1:]
    g[0] += 0.25
    return g


def minibatch_rounds(batch: int, rate: float, seed: int, limit: int = 3000) -> float:
    """Return how many sequential minibatch steps reach the target; infinity after `limit`."""
    problem, rng = Quadratic(), np.random.default_rng(seed)
    x = problem.initial(seed)
    for step in range(limit):
        if problem.score(x) >= problem.target:
            return step
        x -= rate * (gradient(x) + NOISE / math.sqrt(batch) * rng.standard_normal(DIMENSION))
    return math.inf


def batch_time(batch: int, seconds: np.ndarray) -> float:
    """Return t(B) = min{t : sum_i floor(t / tau_i) >= B}: B gradients, as soon as possible."""
    low, high = 0.0, float(seconds.min()) * batch
    for _ in range(60):
        middle = (low + high) / 2
        enough = np.floor(middle / seconds * (1 + 1e-12)).sum() >= batch
        low, high = (low, middle) if enough else (middle, high)
    return high


def limit_formula(seconds: np.ndarray) -> float:
    """Return min_m harmonic mean of the m fastest x (1 + sigma^2 / (m eps)): arXiv 2305.12387."""
    rates = np.cumsum(1 / np.sort(seconds))
    m = np.arange(1, len(seconds) + 1)
    return float(np.min(m / rates * (1 + BATCH / m)))
