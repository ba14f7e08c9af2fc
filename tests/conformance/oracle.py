"""What the papers say, once more: float64 NumPy, every update kept in a list, nothing clever.

Written from the formulas alone, so that a rule and its oracle share no mistake. Symbols are those
of the papers: x global model, y client model, D = y - base (Delta), tau staleness, s staleness
weight, n examples, a mixing rate, eta server learning rate, N normaliser.
"""

import math
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

Vector = np.ndarray
Formula = Callable[[int], float]


def constant(tau: int) -> float:
    return 1.0


def polynomial(a: float) -> Formula:
    return lambda tau: 1 / (1 + tau) ** a


def hinge(a: float, b: float) -> Formula:
    return lambda tau: 1.0 if tau <= b else 1 / (a * (tau - b) + 1)


def exponential(beta: float) -> Formula:
    return lambda tau: math.e ** (-beta * tau)


@dataclass(frozen=True)
class Reply:
    """What an oracle is told about one update; `node` is for rules that tell nodes apart.

    B is the number of local steps that was asked for, or None; t the versions published so far.
    """

    node: int
    base: Vector
    D: Vector
    tau: int
    n: float
    B: int | None = None
    t: int = 0


class Step(NamedTuple):
    """The model after one reply.

    `weight` is s(tau), or None for a rule without a staleness function; `pending` counts updates
    that are not part of a published version yet; a reply that is not `accepted` changes nothing.
    """

    x: Vector
    weight: float | None
    published: bool
    pending: int = 0
    accepted: bool = True


class Oracle(Protocol):
    """A server rule: the model before a reply in, the model after it out.

    No reply is the end of a clock's period: what is held is applied; `Step.published` says whether
    there was anything.
    """

    def __call__(self, x: Vector, reply: Reply | None) -> Step: ...


def at_once(step: Callable[[Vector, Reply], Step]) -> Oracle:
    """A rule that holds nothing: at the end of a period nothing is left to do."""
    return lambda x, reply: Step(x, None, published=False) if reply is None else step(x, reply)


def waits(buffer: Sized, size: int | None, reply: Reply | None) -> bool:
    """Whether there is nothing to apply: nothing at all, or less than a buffer and no clock."""
    is_full = size is not None and len(buffer) >= size
    return not buffer or (reply is not None and not is_full)


def fedasync(alpha: float, s: Formula) -> Oracle:
    """arXiv 1903.03934: x <- (1 - a_t) x + a_t y, a_t = alpha s(tau)."""

    def step(x: Vector, reply: Reply) -> Step:
        y = reply.base + reply.D
        a_t = alpha * s(reply.tau)
        return Step((1 - a_t) * x + a_t * y, s(reply.tau), published=True)

    return at_once(step)


def fedbuff(
    buffer_size: int | None, eta: float, s: Formula, normalise: str, weighted: bool
) -> Oracle:
    """arXiv 2106.06639: every buffer_size updates x <- x + eta (sum n s D) / N."""
    buffer: list[Reply] = []

    def step(x: Vector, reply: Reply | None) -> Step:
        buffer.extend([reply] if reply else [])
        weight = s(reply.tau) if reply else None
        if waits(buffer, buffer_size, reply):
            return Step(x, weight, published=False, pending=len(buffer))
        n = np.array([r.n if weighted else 1.0 for r in buffer])
        w = n * np.array([s(r.tau) for r in buffer])
        N = {"buffer": n.sum(), "weights": w.sum()}[normalise]
        total = sum(w_i * r.D for w_i, r in zip(w, buffer, strict=True))
        buffer.clear()
        return Step(x + eta * total / N, weight, published=True)

    return step
