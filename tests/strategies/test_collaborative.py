"""One model per node, through the whole engine."""

import json
import math

import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord, RecordDict

from fedagent import AsyncStrategy, Collaborative
from fedagent.client.mods import partition_id_mod
from fedagent.mixing import complete, grouped, pair, ring
from fedagent.report import Recorder
from fedagent.rules import ASGD
from fedagent.rules.staleness import constant
from fedagent.simulation import Equal, Lognormal
from fedagent.stopping import Metric
from fedagent.strategies.collaborative import per_node_metrics
from tests.toy import TRUE_WEIGHTS, Log, client_app, run

NODES = 6


def flat(record):
    return torch.cat([torch.from_numpy(a.numpy()).flatten() for a in record.values()])


def client(**settings):
    """The toy's ClientApp, behind the mod."""
    return client_app(mods=[partition_id_mod], **settings)


def test_the_published_model_is_the_mean_of_all():
    strategy = Collaborative(ring(NODES), consensus=1.0)
    result = run(strategy, Lognormal(num_nodes=NODES), rounds=60, client=client()).result
    assert torch.allclose(flat(result.arrays), strategy.rule.models.mean(0), atol=1e-6)
    assert (strategy.rule.models[:, :4] - TRUE_WEIGHTS).norm(dim=1).max() < 0.5
    assert strategy.rule.metrics()["consensus-distance"] > 1e-3


def test_complete_mixing_is_asgd_on_the_same_fleet():
    fleet = Lognormal(num_nodes=NODES)
    options = {"fraction_evaluate": 0.0}
    mixed = run(Collaborative(complete(NODES), staleness=constant, **options), fleet, rounds=40)
    single = run(AsyncStrategy(ASGD(1 / NODES), **options), fleet, rounds=40)
    assert torch.allclose(flat(mixed.result.arrays), flat(single.result.arrays), atol=1e-5)


def test_nodes_have_the_place_of_their_partition():
    """Groups {0, 2, 4} and {1, 3, 5} want opposite things, and get them."""

    def contradict(partition, reply):
        if partition % 2 == 0:
            return None
        weights = {
            name: torch.full_like(torch.from_numpy(array.numpy()), -7.0)
            for name, array in reply["arrays"].items()
        }
        return RecordDict({"arrays": ArrayRecord(weights), "metrics": reply["metrics"]})

    strategy = Collaborative(grouped(2, NODES), concurrency=2)
    run(strategy, Lognormal(num_nodes=NODES), rounds=120, client=client(misbehave=contradict))
    models = strategy.rule.models[:, :4]
    assert (models[0::2] - TRUE_WEIGHTS).norm(dim=1).max() < 0.5
    assert (models[1::2] + 7.0).norm(dim=1).max() < 0.5


def test_a_node_too_many_is_counted_and_the_others_go_on():
    log = Log()
    strategy = Collaborative(pair(), callbacks=[log], fraction_evaluate=0.0)
    run(strategy, Equal(num_nodes=3), rounds=10, client=client())
    outcomes = log.statistics.by_outcome()
    assert outcomes["applied"] == 10 * 3
    assert outcomes["rejected(no-place-in-mixing)"] >= 1


def test_two_runs_of_one_strategy_are_the_same():
    strategy = Collaborative(ring(NODES), consensus=0.5)
    first, second = (
        flat(run(strategy, Lognormal(num_nodes=NODES), rounds=30, client=client()).result.arrays)
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_metrics_tell_mean_extremes_and_every_node():
    def evaluated(node, accuracy, examples):
        metrics = {"partition-id": node, "accuracy": accuracy, "num-examples": examples}
        return RecordDict({"metrics": MetricRecord(metrics)})

    records = [evaluated(2, 0.5, 30), evaluated(0, 1.0, 10)]
    assert dict(per_node_metrics(records, "num-examples")) == {
        "accuracy": pytest.approx(0.625),
        "nodes": [0, 2],
        "accuracy-min": 0.5,
        "accuracy-max": 1.0,
        "accuracy-per-node": [1.0, 0.5],
    }


@pytest.mark.parametrize("values", [(0.5, math.nan), (math.nan, 0.5)])
def test_a_node_without_a_number_shows_in_the_extremes_wherever_it_stands(values):
    records = [
        RecordDict({"metrics": MetricRecord({"accuracy": value, "num-examples": 1})})
        for value in values
    ]
    found = per_node_metrics(records, "num-examples")
    assert math.isnan(found["accuracy-min"])
    assert math.isnan(found["accuracy-max"])


def test_a_run_records_consensus_distance_and_every_node(tmp_path):
    recorder = Recorder(tmp_path, Metric("error", "min", "clients"), None, {})
    strategy = Collaborative(
        ring(NODES), callbacks=[recorder], evaluate_every=2, evaluate_clients_every=100
    )
    run(strategy, Equal(num_nodes=NODES), rounds=4, client=client())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    by_rule = {line["version"]: line["metrics"] for line in lines if line.get("source") == "rule"}
    assert sorted(by_rule) == [2 * NODES, 4 * NODES]
    assert by_rule[4 * NODES] == pytest.approx(strategy.rule.metrics())
    (by_clients,) = [line["metrics"] for line in lines if line.get("source") == "clients"]
    own = (strategy.rule.models[:, :4] - TRUE_WEIGHTS).norm(dim=1)
    assert by_clients["nodes"] == list(range(NODES))
    assert by_clients["error-per-node"] == pytest.approx(own.tolist(), rel=1e-5)
    assert by_clients["error-max"] == pytest.approx(float(own.max()), rel=1e-5)


def test_consensus_distance_is_part_of_the_result():
    strategy = Collaborative(ring(NODES), evaluate_every=5)
    result = run(strategy, Equal(num_nodes=NODES), rounds=10, client=client()).result
    metrics = result.train_metrics_clientapp
    assert metrics[10]["consensus-distance"] > 0
    assert "consensus-distance" not in metrics[9]
    assert "loss" in metrics[10]
    assert "partition-id" not in metrics[10]
