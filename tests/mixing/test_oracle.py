"""Random asynchronous runs against a naive recursion with dense matrices.

The oracle counts staleness by comparing change counters with a copy taken at dispatch, where the
rule searches versions; it keeps all weights in a K x K table, where the rule keeps neighbours.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from fedagent.mixing import MixingMatrix, complete, erdos_renyi, pair, ring, star
from fedagent.mixing.rule import Mixing
from fedagent.staleness import constant, polynomial
from tests.mixing.sweeps import arrive, flat_model, update

P = 3
MATRICES = {
    "complete": complete(5),
    "ring": ring(6),
    "star": star(5),
    "random": erdos_renyi(8, 0.5, seed=3),
    "asymmetric": MixingMatrix.of([[0.2, 0.5, 0.0], [0.8, 0.3, 0.9], [0.0, 0.2, 0.1]]),
    "raw": pair(0.3, 0.8, stochastic=False),
}


@dataclass
class Job:
    """What a node was sent, and the oracle's and the real version's state at that moment."""

    node: int
    base: np.ndarray
    counters: np.ndarray
    version: int


class Oracle:
    """The definition, entry by entry."""

    def __init__(self, c, staleness, buffer_size, gamma):
        self.c, self.s, self.buffer_size, self.gamma = c, staleness, buffer_size, gamma
        self.theta = np.zeros((len(c), P))
        self.lost = np.zeros_like(c)
        self.counters = np.zeros(len(c), int)
        self.buffer = []

    def arrive(self, job, delta):
        self.buffer.append((job, delta))
        if len(self.buffer) < self.buffer_size:
            return
        nodes, before = range(len(self.c)), self.theta.copy()
        weights = []
        for sent, _ in self.buffer:
            tau = self.counters - sent.counters
            w = np.array([self.c[sent.node, k] * self.s(int(tau[k])) for k in nodes])
            self.lost[sent.node] = self.c[sent.node] - w
            self.lost[sent.node, sent.node] = 0.0
            weights.append(w)
        changed = set()
        for number, ((sent, moved), w) in enumerate(zip(self.buffer, weights, strict=True)):
            newest = all(later.node != sent.node for later, _ in self.buffer[number + 1 :])
            for k in nodes:
                weight = w[k] if k != sent.node else self.c[k, k] + self.lost[:, k].sum()
                pull = self.gamma * (sent.base - before[k]) if newest and k != sent.node else 0.0
                self.theta[k] += weight * (moved + pull)
                if weight > 0:
                    changed.add(k)
        self.counters[list(changed)] += 1
        self.buffer.clear()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("staleness", [constant, polynomial], ids=["constant", "polynomial"])
@pytest.mark.parametrize("buffer_size", [1, 4])
@pytest.mark.parametrize(
    ("name", "gamma"), [(n, g) for n in MATRICES for g in (0.0, 0.7) if g == 0.0 or n != "raw"]
)
def test_every_event_is_that_of_the_oracle(name, gamma, buffer_size, staleness, seed):
    mixing = MATRICES[name]
    rng = np.random.default_rng(seed)
    oracle = Oracle(mixing.dense(), staleness, buffer_size, gamma)
    rule, model = Mixing(mixing, staleness, buffer_size, gamma), flat_model(P)
    jobs = [Job(node, np.zeros(P), oracle.counters.copy(), 0) for node in range(mixing.num_nodes)]
    speeds = rng.lognormal(size=len(jobs))
    for _ in range(80):
        node = int(rng.choice(len(jobs), p=speeds / speeds.sum()))
        job, delta = jobs[node], rng.normal(size=P)
        oracle.arrive(job, delta)
        arrive(rule, model, update(node, delta, job.base, model.version - job.version))
        np.testing.assert_allclose(rule.models.numpy(), oracle.theta, atol=1e-10)
        np.testing.assert_allclose(model.vector.numpy(), oracle.theta.mean(0), atol=1e-10)
        jobs[node] = Job(node, oracle.theta[node].copy(), oracle.counters.copy(), model.version)
