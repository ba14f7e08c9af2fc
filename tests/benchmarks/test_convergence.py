"""The pure loops of the comparison do what the real engine does."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.convergence.loop import asynchronous
from benchmarks.convergence.rounds import synchronous
from benchmarks.convergence.trace import Budget
from fedagent import AsyncStrategy
from fedagent.rules import AREA, ASGD, FedBuff, Ringmaster
from fedagent.scheduling import FedCompass, RoundRobin
from fedagent.simulation import Scripted
from fedagent.stopping import MaxUpdates
from fedagent.strategies.cutoff import Cutoff
from fedagent.strategies.synchronous import Synchronous
from tests.toy import Log, run

TIMES = (1.0, 2.5, 7.0, 7.5)
RATE = 0.25


class Parabolas:
    """Node k pulls towards its own point, steps are exact: everything follows from the schedule."""

    num_nodes = len(TIMES)
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    target = 0.0

    def arrays(self, vector):
        return {"x": vector}

    def initial(self, seed):
        return np.full(2, 5.0)

    def work(self, node, start, steps, rate, rng):
        centre = np.array([node, -node], float)
        return (1 - (1 - rate) ** steps) * (centre - start)

    def score(self, vector):
        return -float(vector @ vector)


def client():
    app, problem = ClientApp(), Parabolas()

    @app.train()
    def train(message, context):
        config = message.content.config_records["config"]
        node = context.node_config["partition-id"]
        start = message.content["arrays"]["x"].numpy()
        moved = start + problem.work(node, start, config.get("local-steps", 1), RATE, None)
        reply = {
            "arrays": ArrayRecord({"x": torch.from_numpy(moved)}),
            "metrics": MetricRecord({"num-examples": problem.weights[node]}),
        }
        return Message(RecordDict(reply), reply_to=message)

    return app


@pytest.mark.parametrize(
    ("rule", "scheduler"),
    [
        (lambda: ASGD(0.5), RoundRobin),
        (lambda: FedBuff(3), RoundRobin),
        (lambda: Ringmaster(2, 0.5), RoundRobin),
        (lambda: FedBuff(2), lambda: FedCompass(1, 8, seed=4)),
    ],
    ids=["asgd", "fedbuff", "ringmaster", "fedcompass"],
)
def test_asynchronous_loop_agrees_with_the_engine(rule, scheduler):
    log = Log()
    strategy = AsyncStrategy(
        rule(), concurrency=3, scheduler=scheduler(), callbacks=[log], fraction_evaluate=0.0
    )
    real = run(
        strategy,
        Scripted(num_nodes=4, times=TIMES),
        rounds=16,  # so that the last buffer is full: a run flushes what its last round leaves
        client=client(),
        initial={"x": torch.full((2,), 5.0, dtype=torch.float64)},
    )
    pure = asynchronous(
        Parabolas(),
        rule(),
        scheduler(),
        np.array(TIMES),
        concurrency=3,
        local_steps=1,
        learning_rate=RATE,
        seed=0,
        budget=Budget(log.statistics.num_updates),
    )
    assert np.allclose(pure.vector, real.result.arrays["x"].numpy(), rtol=1e-12)
    assert pure.statistics.now_s == pytest.approx(log.statistics.now_s)
    assert pure.statistics.staleness_sum == log.statistics.staleness_sum
    assert pure.statistics.useful_s == pytest.approx(log.statistics.useful_s)


@pytest.mark.parametrize(
    ("cohort", "options"),
    [
        (4, {}),
        (4, {"deadline_s": 3.0}),
        (3, {"over_selection": 1.3}),
        (4, {"deadline_percentile": 60.0}),
        (4, {"deadline_percentile": 60.0, "deadline_s": 2.0}),
    ],
)
def test_synchronous_loop_agrees_with_flower(cohort, options):
    log = Log()
    flowers = FedAvg(fraction_evaluate=0.0, fraction_train=1e-9, min_train_nodes=cohort)
    real = run(
        Synchronous(flowers, [MaxUpdates(20)], [log], **options),
        Scripted(num_nodes=4, times=TIMES),
        rounds=100,
        client=client(),
        initial={"x": torch.full((2,), 5.0, dtype=torch.float64)},
    )
    pure = synchronous(
        Parabolas(),
        np.array(TIMES),
        cohort=cohort,
        local_steps=1,
        learning_rate=RATE,
        seed=0,
        budget=Budget(20),
        cutoff=Cutoff(**options),
    )
    assert np.allclose(pure.vector, real.result.arrays["x"].numpy(), rtol=1e-12)
    assert pure.statistics.at_work_max == log.statistics.at_work_max
    assert pure.statistics.num_updates == log.statistics.num_updates
    assert pure.statistics.now_s == pytest.approx(log.statistics.now_s)


def test_area_is_the_mean_of_what_the_nodes_last_sent():
    trace = asynchronous(
        Parabolas(),
        AREA(4, publish_every=1),
        RoundRobin(),
        np.ones(4),
        concurrency=4,
        local_steps=50,
        learning_rate=RATE,
        seed=0,
        budget=Budget(40),
    )
    assert np.allclose(trace.vector, [1.5, -1.5], atol=1e-4), "every node sends its own centre"
