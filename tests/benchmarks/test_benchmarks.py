"""The pure loops that benchmarks use do what the real engine does."""

import json
import sys

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from benchmarks import aggregation, applications, control_plane, engine
from benchmarks.engine_peers import PeerMissingError
from benchmarks.loop import Budget, asynchronous, synchronous
from fedagent import AsyncStrategy
from fedagent.errors import DataUnavailableError
from fedagent.rules import AREA, ASGD, FedBuff, Ringmaster
from fedagent.scheduling import FedCompass, RoundRobin
from fedagent.simulation import Scripted
from fedagent.stopping import Metric
from tests.toy import Log, run

TIMES = (1.0, 2.5, 7.0, 7.5)
RATE = 0.25


class Parabolas:
    """Node k pulls towards its own point, steps are exact: everything follows from the schedule."""

    num_nodes = len(TIMES)
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    target = 0.0

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
        rounds=15,
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


def test_synchronous_loop_agrees_with_flower():
    real = run(
        FedAvg(fraction_evaluate=0.0),
        Scripted(num_nodes=4, times=TIMES),
        rounds=5,
        client=client(),
        initial={"x": torch.full((2,), 5.0, dtype=torch.float64)},
    )
    pure = synchronous(
        Parabolas(),
        np.array(TIMES),
        cohort=4,
        local_steps=1,
        learning_rate=RATE,
        seed=0,
        budget=Budget(20),
    )
    assert np.allclose(pure.vector, real.result.arrays["x"].numpy(), rtol=1e-12)
    assert pure.statistics.now_s == pytest.approx(real.virtual_time_s)


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


def test_the_engine_benchmark_measures_what_is_there_and_names_what_is_not(capsys, monkeypatch):
    monkeypatch.setattr(engine, "CLIENTS", {"linear": 160})
    monkeypatch.setitem(engine.ENGINES, "other", _absent)
    engines = "bare,fedagent,fedagent_vectorised,other"
    monkeypatch.setattr("sys.argv", ["engine", "--quick", "--only", engines, "--models", "linear"])
    engine.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["absent"] == {"other": "not installed here"}
    speeds = found["clients_per_s"]["linear"]
    assert set(speeds) == {"bare", "fedagent", "fedagent_vectorised"}
    assert all(speed > 0 for speed in speeds.values())
    assert found["ratio"]["linear"]["bare"] == 1.0


def _absent():
    raise PeerMissingError("not installed here")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_aggregation_is_measured_for_every_rule(monkeypatch, capsys):
    sizes = ["--sizes", "80000", "--repetitions", "1"]
    monkeypatch.setattr(sys, "argv", ["aggregation", *sizes])
    aggregation.main()
    *table, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert set(report["bandwidth"]["80000"]) >= {"axpy", "copy", "admission", "version"}
    for rule in aggregation.RULES:
        assert report["bandwidth"]["80000"][f"rule {rule}"]["gb_per_s"] > 0
        assert any(line.startswith(f"| rule {rule} |") for line in table)
    assert report["replies"]["80000"]["FedAsync"]["versions"] >= 5
    assert {"torch", "flwr", "numpy", "cpus", "threads", "load"} <= set(report)


def test_the_control_plane_is_measured_in_processes_of_its_own(capsys):
    readings = [control_plane.measure_apart(100, tasks=30)]
    control_plane.print_table(readings)
    for part in control_plane.PARTS:
        assert readings[0][part]["tasks"] == (300 if part == "pure" else 30)
        assert readings[0][part]["tasks_per_s"] > 0
        assert readings[0][part]["peak_mb"] >= readings[0]["imports_mb"]
    assert "| 100 | 10 |" in capsys.readouterr().out


def test_the_applications_benchmark_measures_what_is_there_and_names_what_is_not(
    capsys, monkeypatch
):
    quick = applications.Application({"fedavg": (), "fedbuff": ()}, "fedbuff", quick=TINY)
    found = {"hospitals": quick, "astrology": quick, "traffic": quick}
    monkeypatch.setattr(applications, "APPLICATIONS", found)
    monkeypatch.setattr("clients.traffic.task.load", _no_counts)
    monkeypatch.setattr(sys, "argv", ["applications", "--quick"])
    applications.main()
    *table, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert report["about"]["absent"] == {
        "astrology": "there is no clients/astrology here",
        "traffic": "not here",
    }
    hospitals = report["hospitals"]
    assert {"metric", "baseline", "centralised", "share", "speedup_vs_fedavg"} <= set(hospitals)
    assert hospitals["share"] == pytest.approx(hospitals["metric"] / hospitals["centralised"])
    assert hospitals["strategies"]["fedavg"]["bytes"] > 0
    assert any(line.startswith("| fedbuff |") for line in table)


TINY = ("stopping.max_updates=8", "local_steps=2", "client.batch_size=8")


def _no_counts(*_):
    raise DataUnavailableError("not here")


def test_five_per_cent_is_below_a_share_and_above_an_error():
    assert applications.within(Metric("auroc"), 0.8) == pytest.approx(0.76)
    assert applications.within(Metric("mae", "min"), 38.0) == pytest.approx(40.0)


def test_an_application_is_summed_up_over_its_seeds(monkeypatch):
    monkeypatch.setitem(
        applications.APPLICATIONS, "traffic", applications.Application({}, best="fedbuff")
    )

    def outcome(error, fedavg_s, fedbuff_s):
        def run(time_s):
            metrics = {"mae": error, "num-examples": 5.0}
            totals = {"virtual_time_s": 200.0, "bytes": 10, "wall_s": 1.0}
            return {"metrics": metrics, "time_to_target_s": time_s, **totals}

        return {
            "baseline": {"mae": 60.0},
            "centralised": {"mae": 40.0},
            "runs": {"fedavg": run(fedavg_s), "fedbuff": run(fedbuff_s)},
        }

    metric = Metric("mae", "min")
    found = applications.summarise("traffic", [outcome(50, 90, 10), outcome(30, 30, 20)], metric)
    assert (found["metric"], found["baseline"], found["share"]) == (40.0, 60.0, 1.0)
    assert found["speedup_vs_fedavg"] == 4.0
    late = applications.summarise("traffic", [outcome(50, 90, None), outcome(50, 30, 20)], metric)
    assert late["share"] == pytest.approx(0.8), "an error of 50 where 40 is possible"
    assert late["speedup_vs_fedavg"] is None
    assert late["strategies"]["fedbuff"]["reached"] == 1
    never = applications.summarise("traffic", [outcome(50, None, 10), outcome(50, 30, 10)], metric)
    assert (never["speedup_vs_fedavg"], never["speedup_is_at_least"]) == (20.0, True)
