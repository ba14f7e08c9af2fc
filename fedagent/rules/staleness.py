"""Staleness weights s(tau): how much an update that is tau versions late still counts.

tau >= 0 counts versions published between dispatch and arrival. Every weight is 1 at tau = 0 and
lies in [0, 1]. `hinge`, `polynomial` and `constant` are those of FedAsync (arXiv 1903.03934,
section 5.2). Set a parameter with ``functools.partial(polynomial, a=0.3)``; multiply two weights
with `product`.
"""

import itertools
import math
from collections.abc import Callable

from fedagent.errors import check_type, require

Staleness = Callable[[int], float]


def constant(tau: int) -> float:
    """S = 1: staleness is ignored."""
    return 1.0


def polynomial(tau: int, a: float = 0.5) -> float:
    """S = (1 + tau)^-a; a = 0 ignores staleness."""
    return float((1.0 + tau) ** -a)


def hinge(tau: int, a: float = 10.0, b: float = 4.0) -> float:
    """S = 1 while tau <= b, then 1 / (a (tau - b) + 1); a = 0 ignores staleness."""
    return 1.0 if tau <= b else 1.0 / (a * (tau - b) + 1.0)


def exponential(tau: int, beta: float = 0.1) -> float:
    """S = exp(-beta tau); beta = 0 ignores staleness."""
    return math.exp(-beta * tau)


def harmonic(tau: int, beta: float = 1.0) -> float:
    """S = 1 / (1 + beta tau); beta = 0 ignores staleness."""
    return 1.0 / (1.0 + beta * tau)


def threshold(tau: int, limit: float = 10.0) -> float:
    """S = 1 while tau <= limit, then 0: too late counts nothing, but is still received.

    `fedagent.rules.Ringmaster` refuses such an update instead.
    """
    return 1.0 if tau <= limit else 0.0


def delay_adaptive(tau: int, concurrency: float) -> float:
    """S = n / max(n, tau), n = concurrency: nothing is lost until tau exceeds n.

    arXiv 2206.07638 and 2206.08307, for a rule that publishes on every arrival.
    """
    return min(1.0, concurrency / tau) if tau else 1.0


def validated(weight: Staleness) -> Staleness:
    """Return `weight` if it is one: 1 at tau = 0, in [0, 1] and never rising.

    Raises
    ------
    ConfigurationError
        If it is not, as ``polynomial`` with a negative exponent.
    """
    check_type("staleness", weight, Staleness, "take one from fedagent.rules.staleness")
    ages = (0, 1, 2, 5, 10, 100, 1000)
    values = [weight(tau) for tau in ages]
    require(values[0] == 1.0, f"A fresh update must weigh 1, but s(0) = {values[0]}.")
    require(
        all(0.0 <= later <= earlier for earlier, later in itertools.pairwise(values)),
        f"A staleness weight must fall from 1 towards 0, but for tau = {ages} it is {values}; "
        "are its parameters negative?",
    )
    return weight


def product(*weights: Staleness) -> Staleness:
    """Return the product of several weights; of none, `constant`."""
    return lambda tau: math.prod(weight(tau) for weight in weights)
