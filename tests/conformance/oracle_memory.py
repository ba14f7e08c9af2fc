"""Oracles of the rules that remember: a table of updates, moments, or how late a node has been.

Like `oracle`: from the formulas alone, float64 lists, sums formed anew every time.
"""

import numpy as np

from tests.conformance.oracle import Oracle, Reply, Step, Vector, at_once, waits


def ca2fl(buffer_size: int | None, eta: float, n: int) -> Oracle:
    """ICLR 2024: v = mean_buffer(D_i - h_i) + mean_all(h), all h from before the buffer."""
    buffer: list[Reply] = []
    h: dict[int, Vector] = {}

    def step(x: Vector, reply: Reply | None) -> Step:
        buffer.extend([reply] if reply else [])
        if waits(buffer, buffer_size, reply):
            return Step(x, None, published=False, pending=len(buffer))
        nodes = max(n, len(h))
        mean_of_all = sum(h.values(), np.zeros_like(x)) / nodes
        calibrated = [r.D - h.get(r.node, np.zeros_like(x)) for r in buffer]
        v = np.mean(calibrated, axis=0) + mean_of_all
        for r in buffer:
            h[r.node] = r.D
        buffer.clear()
        return Step(x + eta * v, None, published=True)

    return step


def ace(n: int, eta: float, max_age: int | None) -> Oracle:
    """arXiv 2511.19066: x <- x + eta mean of everybody's latest, of no entry older than max_age."""
    latest: dict[int, tuple[int, Vector]] = {}

    def step(x: Vector, reply: Reply) -> Step:
        if max_age is not None and reply.tau > max_age:
            return Step(x, None, published=False, accepted=False)
        latest[reply.node] = (reply.t - reply.tau, reply.D)
        fresh = [D for base, D in latest.values() if max_age is None or reply.t - base <= max_age]
        number = len(fresh) if max_age is not None else max(n, len(fresh))
        return Step(x + eta * np.sum(fresh, axis=0) / number, None, published=True)

    return at_once(step)


def area(n: int, publish_every: int) -> Oracle:
    """arXiv 2405.10123: x = mean of y_j; y_j = x_0 until node j was heard."""
    y: dict[int, Vector] = {}
    start: list[Vector] = []
    arrivals = 0  # since the last version

    def step(x: Vector, reply: Reply | None) -> Step:
        nonlocal arrivals
        if reply is None:
            is_new, arrivals = arrivals > 0, 0
            return Step(x, None, published=is_new)
        if not start:
            start.append(x)
        first = reply.node not in y
        y[reply.node] = reply.base + reply.D if first else y[reply.node] + reply.D
        silent = max(n, len(y)) - len(y)
        arrivals = (arrivals + 1) % publish_every
        return Step(
            np.mean([*y.values(), *start * silent], axis=0),
            None,
            published=arrivals == 0,
            pending=arrivals,
        )

    return step


def fadas(
    buffer_size: int | None, eta: float, beta1: float, beta2: float, eps: float, tau_c: int
) -> Oracle:
    """arXiv 2407.18365: AMSGrad without bias correction, moments written out as sums."""
    buffer: list[Reply] = []
    means: list[Vector] = []
    history: list[Vector] = []

    def step(x: Vector, reply: Reply | None) -> Step:
        buffer.extend([reply] if reply else [])
        if waits(buffer, buffer_size, reply):
            return Step(x, None, published=False, pending=len(buffer))
        means.append(np.mean([r.D for r in buffer], axis=0))
        age = range(len(means) - 1, -1, -1)
        m = sum((1 - beta1) * beta1**k * D for k, D in zip(age, means, strict=True))
        v = sum((1 - beta2) * beta2**k * D**2 for k, D in zip(age, means, strict=True))
        history.append(v)
        tau_max = max(r.tau for r in buffer)
        eta_t = eta if tau_max <= tau_c else min(eta, 1 / tau_max)
        buffer.clear()
        return Step(x + eta_t * m / (np.sqrt(np.max(history, axis=0)) + eps), None, published=True)

    return step


def port(buffer_size: int | None, w_c: float, w_s: float, beta: float) -> Oracle:
    """IWQoS 2022, with the buffer's shares of examples as in the authors' code."""
    buffer: list[Reply] = []

    def cosine(a: Vector, b: Vector) -> float:
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / lengths) if lengths else 1.0

    def step(x: Vector, reply: Reply | None) -> Step:
        buffer.extend([reply] if reply else [])
        if waits(buffer, buffer_size, reply):
            return Step(x, None, published=False, pending=len(buffer))
        n = sum(r.n for r in buffer)
        agree = [cosine(x - r.base, r.D) if r.tau else 1.0 for r in buffer]
        raw = [
            r.n / n * (w_c * (1 + cos) / 2 + w_s * beta / (r.tau + beta))
            for cos, r in zip(agree, buffer, strict=True)
        ]
        total = sum(p / sum(raw) * r.D for p, r in zip(raw, buffer, strict=True))
        buffer.clear()
        return Step(x + total, None, published=True)

    return step


def fedstaleweight(buffer_size: int | None, eta: float, average: bool) -> Oracle:
    """arXiv 2406.02877: w_i proportional to K tau_i + 1, normalised inside the buffer.

    K is how many updates a version had on average: every reply that came before version t is in one
    of the t versions.
    """
    buffer: list[tuple[float, Vector]] = []
    taus: dict[int, list[int]] = {}
    arrived_at: list[int] = []

    def weight(reply: Reply) -> float:
        taus.setdefault(reply.node, []).append(reply.tau)
        arrived_at.append(reply.t)
        tau = float(np.mean(taus[reply.node])) if average else reply.tau
        K = sum(t < reply.t for t in arrived_at) / reply.t if reply.t else 0.0
        return K * tau + 1

    def step(x: Vector, reply: Reply | None) -> Step:
        buffer.extend([(weight(reply), reply.D)] if reply else [])
        if waits(buffer, buffer_size, reply):
            return Step(x, None, published=False, pending=len(buffer))
        mean = np.average([D for _, D in buffer], axis=0, weights=[w for w, _ in buffer])
        buffer.clear()
        return Step(x + eta * mean, None, published=True)

    return step
