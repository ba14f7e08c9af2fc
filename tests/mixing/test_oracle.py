"""Random asynchronous runs against a naive recursion with dense matrices."""

import numpy as np
import pytest

from fedagent.mixing import MixingMatrix, complete, erdos_renyi, pair, ring, star
from fedagent.mixing.rule import Mixing
from fedagent.rules.staleness import constant, polynomial
from tests.mixing.oracle import Job, Oracle
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
