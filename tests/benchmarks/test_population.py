"""Populations are measured, whatever their size, for the jobs after the first ones."""

import json

import pytest

from benchmarks.engine.workload import NODES, partition
from benchmarks.population.__main__ import main


def test_two_populations_train_beside_each_other(capsys):
    main(["--quick", "--models", "linear", "--jobs", "40", "--nodes", "100,300", "--workers", "1"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["populations"]["linear"]
    assert [found["100"]["ratio"], found["100"]["clients"]] == [1.0, 40]
    assert found["300"]["ratio"] == pytest.approx(
        found["300"]["clients_per_s"] / found["100"]["clients_per_s"], abs=2e-3
    )
    assert found["100"]["nodes_that_worked"] < found["300"]["nodes_that_worked"]


def test_every_node_of_a_large_population_has_data_of_its_own():
    (one, labels), (other, _), (again, _) = (partition(n) for n in (NODES, NODES + 1, NODES))
    assert len(one) == len(labels) == len(partition(0)[0])
    assert (one == again).all()
    assert not (one == other).all()
