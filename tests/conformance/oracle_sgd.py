"""The SGD family of server rules, as `oracle` writes them: float64, lists, nothing clever."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np

from tests.conformance.oracle import Formula, Oracle, Reply, Step, Vector, at_once, waits


def harmonic(beta: float) -> Formula:
    return lambda tau: 1 / (1 + beta * tau)


def threshold(limit: float) -> Formula:
    return lambda tau: float(tau <= limit)


def delay_adaptive(n: int) -> Formula:
    return lambda tau: n / max(n, tau)


def asgd(eta: float, s: Formula) -> Oracle:
    """arXiv 2206.07638: x <- x + eta s(tau) D."""

    def step(x: Vector, reply: Reply) -> Step:
        return Step(x + eta * s(reply.tau) * reply.D, s(reply.tau), published=True)

    return at_once(step)


def ringmaster(limit: float, eta: float) -> Oracle:
    """arXiv 2501.16168: x <- x + eta D if tau < limit, else nothing."""

    def step(x: Vector, reply: Reply) -> Step:
        if reply.tau >= limit:
            return Step(x, None, published=False, accepted=False)
        return Step(x + eta * reply.D, None, published=True)

    return at_once(step)


def rennala(batch_size: int | None, eta: float) -> Oracle:
    """arXiv 2305.12387: x <- x + eta mean of batch_size updates that were computed at x."""
    batch: list[Vector] = []

    def step(x: Vector, reply: Reply | None) -> Step:
        if reply and reply.tau != 0:
            return Step(x, None, published=False, pending=len(batch), accepted=False)
        batch.extend([reply.D] if reply else [])
        if waits(batch, batch_size, reply):
            return Step(x, None, published=False, pending=len(batch))
        mean = np.mean(batch, axis=0)
        batch.clear()
        return Step(x + eta * mean, None, published=True)

    return step


def malenia(n: int, batch_size: int, eta: float) -> Oracle:
    """arXiv 2305.12387: as Rennala, with the mean of the nodes' means.

    It publishes when every node has contributed and the harmonic mean of the counts reaches
    batch_size / n.
    """
    batch: dict[int, list[Vector]] = {}

    def step(x: Vector, reply: Reply) -> Step:
        if reply.tau == 0:
            batch.setdefault(reply.node, []).append(reply.D)
        pending = sum(len(Ds) for Ds in batch.values())
        if reply.tau != 0:
            return Step(x, None, published=False, pending=pending, accepted=False)
        m = len(batch)
        if m < n or m / sum(Fraction(1, len(Ds)) for Ds in batch.values()) < Fraction(
            batch_size, m
        ):
            return Step(x, None, published=False, pending=pending)
        mean = np.mean([np.mean(Ds, axis=0) for Ds in batch.values()], axis=0)
        batch.clear()
        return Step(x + eta * mean, None, published=True)

    return at_once(step)


def ringleader(n: int, eta: float) -> Oracle:
    """arXiv 2509.22860, Algorithm 1, with the two tables it speaks of.

    `this` is the round's table and `following` the next one's; `S` are the nodes whose step is
    still to come, empty in phase 1.
    """
    this: dict[int, list[Vector]] = {}
    following: dict[int, list[Vector]] = {}
    S: set[int] = set()

    def step(x: Vector, reply: Reply | None) -> Step:
        nonlocal this, following
        if reply is None:
            return Step(x, None, published=False, pending=count(following if S else this))
        i = reply.node
        if S and i not in S:
            following.setdefault(i, []).append(reply.D)
            return Step(x, None, published=False, pending=count(following))
        this.setdefault(i, []).append(reply.D)
        if not S:
            if len(this) < n:
                return Step(x, None, published=False, pending=count(this))
            S.update(this)
        x = x + eta * np.mean([np.mean(Ds, axis=0) for Ds in this.values()], axis=0)
        S.remove(i)
        pending = count(following)
        if not S:
            this, following = following, {}
        return Step(x, None, published=True, pending=pending)

    def count(table: dict[int, list[Vector]]) -> int:
        return sum(len(Ds) for Ds in table.values())

    return step


def delayed_nesterov(period: int, beta: float, eta: float) -> Oracle:
    """arXiv 2401.09135, Algorithm 3, g = -D: x <- x - eta g / period, then momentum."""
    gradients: list[Vector] = []
    m: float | Vector = 0.0

    def step(x: Vector, reply: Reply) -> Step:
        nonlocal m
        g = -reply.D
        gradients.append(g)
        x = x - eta * g / period
        if len(gradients) % period == 0:
            m = beta * m + np.mean(gradients[-period:], axis=0)
            x = x - eta * beta * m
        return Step(x, None, published=True)

    return at_once(step)


def heloco(eta: float, beta: float, c_ok: float) -> Oracle:
    """arXiv 2606.00271, pseudo-gradients D turned towards m; x is kept beside what is published."""
    m: float | Vector = 0.0
    x: Vector | None = None

    def corrected(reply: Reply) -> Vector:
        D, norm = reply.D, np.linalg.norm
        if not (norm(D) and norm(m)):
            return D
        u, v = D / norm(D), m / norm(m)
        c, g = u @ v, norm(D) / (norm(D) + 3 * norm(m))
        if c >= c_ok or c_ok == -1:
            return D
        if c < 0:
            return D - min(0.5 * -c * g, 0.5) * c * norm(D) * v
        share = min((1 - c) * g, 1)
        mix = (1 - share) * u + share * v
        return norm(D) * mix / norm(mix)

    def step(y: Vector, reply: Reply) -> Step:
        nonlocal m, x
        x = y if x is None else x
        D = corrected(reply)
        m = beta * m + (1 - beta) * D
        x = x + eta * (D + beta * m)
        return Step(x + eta * beta * m, None, published=True)

    return at_once(step)


def ringmaster_lmo(limit: float, eta: float, a: float, k_0: float) -> Oracle:
    """arXiv 2605.18174, g = -D and one array with one axis: x <- x + eta_k lmo(m)."""
    m: float | Vector = 0.0
    k = 0  # updates that were taken in before this one

    def step(x: Vector, reply: Reply) -> Step:
        nonlocal m, k
        if reply.tau >= limit:
            return Step(x, None, published=False, accepted=False)
        m = (1 - a) * m + a * -reply.D
        # Of all u with sqrt(n) max |u_j| = 1 the one with the least <m, u>.
        lmo = np.where(m > 0, -1.0, np.where(m < 0, 1.0, 0.0)) / np.sqrt(len(m))
        eta_k = eta * np.sqrt(k_0 / (k_0 + k)) if k_0 < np.inf else eta
        k += 1
        return Step(x + eta_k * lmo, None, published=True)

    return at_once(step)


def rescaled(inner: Oracle, w_max: float) -> Oracle:
    """After arXiv 2605.13434: D times all updates per node over the updates of this node."""
    heard: list[int] = []

    def step(x: Vector, reply: Reply | None) -> Step:
        if reply is None:
            return inner(x, None)
        heard.append(reply.node)
        w = min(np.mean(list(Counter(heard).values())) / heard.count(reply.node), w_max)
        return inner(x, replace(reply, D=w * reply.D))._replace(weight=None)

    return step


def dc_asgd(lambda_0: float, adaptive: bool, ema: float, eta: float) -> Oracle:
    """arXiv 1609.08326, g = -D: x <- x - eta (g + lambda g g (x - x_base))."""
    v: float | Vector = 0.0

    def step(x: Vector, reply: Reply) -> Step:
        nonlocal v
        g = -reply.D
        v = ema * v + (1 - ema) * g**2
        lambda_t = lambda_0 / np.sqrt(v + 1e-7) if adaptive else lambda_0
        return Step(x - eta * (g + lambda_t * g * g * (x - reply.base)), None, published=True)

    return at_once(step)


def fednova(buffer_size: int | None, eta: float, s: Formula, weighted: bool) -> Oracle:
    """arXiv 2007.07481 on a buffer: x <- x + eta (sum p B) sum p s D / B."""
    buffer: list[Reply] = []

    def step(x: Vector, reply: Reply | None) -> Step:
        buffer.extend([reply] if reply else [])
        weight = s(reply.tau) if reply else None
        if waits(buffer, buffer_size, reply):
            return Step(x, weight, published=False, pending=len(buffer))
        n = np.array([r.n if weighted else 1.0 for r in buffer])
        p = n / n.sum()
        B = np.array([1 if r.B is None else r.B for r in buffer])
        d = sum(p_i * s(r.tau) * r.D / B_i for p_i, r, B_i in zip(p, buffer, B, strict=True))
        buffer.clear()
        return Step(x + eta * (p @ B) * d, weight, published=True)

    return step
