"""Applications are measured where their data is, and summed up over seeds."""

import json
import sys

import pytest

from benchmarks.applications import study
from fedagent.errors import DataUnavailableError
from fedagent.stopping import Metric


def test_the_applications_benchmark_measures_what_is_there_and_names_what_is_not(
    capsys, monkeypatch
):
    quick = study.Application({"fedavg": (), "fedbuff": ()}, "fedbuff", quick=TINY)
    found = {"hospitals": quick, "astrology": quick, "traffic": quick}
    monkeypatch.setattr(study, "APPLICATIONS", found)
    monkeypatch.setattr("clients.traffic.task.load", _no_counts)
    monkeypatch.setattr(sys, "argv", ["applications", "--quick"])
    study.main()
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
    assert study.within(Metric("auroc"), 0.8) == pytest.approx(0.76)
    assert study.within(Metric("mae", "min"), 38.0) == pytest.approx(40.0)


def test_an_application_is_summed_up_over_its_seeds(monkeypatch):
    monkeypatch.setitem(study.APPLICATIONS, "traffic", study.Application({}, best="fedbuff"))

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
    found = study.summarise("traffic", [outcome(50, 90, 10), outcome(30, 30, 20)], metric)
    assert (found["metric"], found["baseline"], found["share"]) == (40.0, 60.0, 1.0)
    assert found["speedup_vs_fedavg"] == 4.0
    late = study.summarise("traffic", [outcome(50, 90, None), outcome(50, 30, 20)], metric)
    assert late["share"] == pytest.approx(0.8), "an error of 50 where 40 is possible"
    assert late["speedup_vs_fedavg"] is None
    assert late["strategies"]["fedbuff"]["reached"] == 1
    never = study.summarise("traffic", [outcome(50, None, 10), outcome(50, 30, 10)], metric)
    assert (never["speedup_vs_fedavg"], never["speedup_is_at_least"]) == (20.0, True)
