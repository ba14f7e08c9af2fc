"""No version is published that is not finite, and whoever is not to blame trains on."""

import inspect

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedYogi

from fedagent import AsyncStrategy, asynchronous, rules
from fedagent.callbacks import Callback
from fedagent.mixing import Mixing, ring
from fedagent.nodes.geography import Blocks
from fedagent.scheduling import Tiers
from fedagent.simulation import Equal
from fedagent.stopping import MaxSeconds
from tests.toy import Log, run

NODES = 4


def client(huge: float, when: int = 2, hostile: int = 0) -> ClientApp:
    """Clients that walk towards 1; one of them sends something huge, finite, at times."""
    app = ClientApp()
    jobs: dict[int, int] = {}

    @app.train()
    def _train(message: Message, context) -> Message:
        partition = int(context.node_config["partition-id"])
        jobs[partition] = jobs.get(partition, 0) + 1
        arrays = {name: a.numpy() for name, a in message.content["arrays"].items()}
        for name, array in arrays.items():
            assert np.isfinite(array).all(), "a node was sent a model that is not finite"
            step = 0.2 * (1 - array.astype(np.float64))
            if partition == hostile and jobs[partition] == when:
                step = np.full(array.shape, huge)
            arrays[name] = (array + step).astype(array.dtype)
        record = ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    return app


class AllFinite(Callback):
    """Reads every version that is published."""

    def __init__(self, strategy):
        self.strategy, self.num_versions = strategy, 0

    def on_version(self, statistics):
        self.num_versions += 1
        for array in self.strategy.proxy._versions.current.payload.values():
            assert np.isfinite(array.numpy()).all()


def train(strategy_of, huge: float, dtype=torch.float32, seconds=60.0, **options):
    log = Log()
    strategy = strategy_of(
        fraction_evaluate=0.0, callbacks=[log], stopping=[MaxSeconds(seconds)], **options
    )
    watch = AllFinite(strategy)
    object.__setattr__(strategy.options, "callbacks", [log, watch])
    finished = run(
        strategy,
        Equal(num_nodes=NODES),
        client=client(huge),
        initial={"w": torch.zeros(5, dtype=dtype)},
        rounds=10_000,
    )
    weights = finished.result.arrays["w"].numpy().astype(float)
    return log.statistics, weights, watch


def of(rule):
    def strategy(**options):
        made = rule()
        groups = {"scheduler": Tiers(num_tiers=2, cohort=1)} if made.needs_groups else {}
        return AsyncStrategy(made, **groups, **options)

    return strategy


RULES = {
    name: of(lambda kind=kind: kind(**({"buffer_size": 2} if "buffer_size" in parameters else {})))
    for name, kind in vars(rules).items()
    if inspect.isclass(kind)
    and issubclass(kind, rules.Rule)
    and not inspect.isabstract(kind)
    and (parameters := inspect.signature(kind).parameters) is not None
    and all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in parameters.values()
    )
}
RULES |= {
    "Mixing": of(lambda: Mixing(ring(NODES))),
    "Periodic": of(lambda: rules.Periodic(rules.DCASGD(adaptive=False), 2.0)),
    "Hierarchical": of(
        lambda: rules.Hierarchical(Blocks(2, NODES), rules.DCASGD, rules.ASGD(), send_every=2)
    ),
    "wrapped FedAvg": lambda **o: asynchronous(FedAvg(), buffer_size=2, **o),
    "wrapped FedAdam": lambda **o: asynchronous(FedAdam(), buffer_size=2, **o),
    "wrapped FedAdagrad": lambda **o: asynchronous(FedAdagrad(), buffer_size=2, **o),
    "wrapped FedYogi": lambda **o: asynchronous(FedYogi(), buffer_size=2, **o),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_no_rule_publishes_what_is_not_finite(name, dtype):
    huge = 3e32 if dtype == torch.float32 else 6e4
    statistics, weights, watch = train(RULES[name], huge, dtype, seconds=30.0)
    assert watch.num_versions > 3
    assert np.isfinite(weights).all()
    reasons = {reason for outcome, reason in statistics.outcomes if outcome == "rejected"}
    assert "non-finite" not in reasons  # honest nodes were never sent what they cannot train


def strategy_and_limits():
    return [
        pytest.param(of(lambda: rules.DCASGD(adaptive=True)), 3e32, id="dc-asgd"),
        pytest.param(RULES["wrapped FedYogi"], 3e32, id="fedyogi"),
    ]


@pytest.mark.parametrize(("strategy_of", "huge"), strategy_and_limits())
def test_the_sender_is_counted_and_the_others_go_on(strategy_of, huge):
    statistics, weights, _ = train(strategy_of, huge)
    assert statistics.outcomes["rejected", "version-not-finite"] == 1
    assert statistics.num_updates == statistics.outcomes["applied", ""] > 100
    assert np.abs(weights).max() < 10


def test_what_only_half_precision_cannot_hold_is_undone_too():
    statistics, weights, _ = train(of(rules.ASGD), 6e4, torch.float16)
    before = statistics.outcomes["rejected", "version-not-finite"]
    assert np.isfinite(weights).all()
    assert before <= 1


def test_a_run_that_diverges_ends_with_a_finite_model():
    def exploding(**options):
        return AsyncStrategy(rules.ASGD(server_learning_rate=1e3), **options)

    statistics, weights, _ = train(exploding, 1.0, torch.float16, seconds=40.0)
    assert statistics.outcomes["rejected", "version-not-finite"] > 1
    assert np.isfinite(weights).all()
