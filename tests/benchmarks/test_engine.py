"""The comparison of engines measures what is there, however few clients a sample has."""

import json

import pytest

from benchmarks.engine import comparison
from benchmarks.engine.__main__ import main
from benchmarks.engine.peers import PeerMissingError
from benchmarks.engine.workload import COHORT, MODELS, Sample
from fedagent.errors import ConfigurationError


def test_the_engine_benchmark_measures_what_is_there_and_names_what_is_not(capsys, monkeypatch):
    monkeypatch.setattr(comparison, "CLIENTS", {"linear": 160})
    monkeypatch.setitem(comparison.ENGINES, "other", _absent)
    engines = "bare,bare_2_processes,fedagent,fedagent_vectorised,other"
    main(["--quick", "--only", engines, "--models", "linear"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["absent"] == {"other": "not installed here"}
    speeds = found["clients_per_s"]["linear"]
    assert set(speeds) == {"bare", "bare_2_processes", "fedagent", "fedagent_vectorised"}
    assert all(speed > 0 for speed in speeds.values())
    assert found["ratio"]["linear"]["bare"] == 1.0


def _absent():
    raise PeerMissingError("not installed here")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", comparison.ENGINES)
def test_the_smallest_sample_holds_a_cohort_for_each_process(name, model):
    clients = comparison._clients(name, model, quick=True)
    num_processes = 2 if name == "bare_2_processes" else 1
    assert clients // num_processes >= COHORT
    assert clients % (num_processes * COHORT) == 0


def test_a_sample_of_nothing_is_refused_rather_than_divided_by():
    with pytest.raises(ConfigurationError, match="needs a client"):
        Sample(0, 1.0, 1.0)
