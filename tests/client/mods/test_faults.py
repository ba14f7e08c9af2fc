"""Faults that are planned: each happens once, is counted under its reason, and stops nobody."""

import pytest

from fedagent import FedBuff
from fedagent.client.mods import Faults
from fedagent.errors import ConfigurationError
from fedagent.simulation import Equal
from tests.toy import client_app, run

COUNTED = {
    "raise": "failed(client-app-raised)",
    "nan": "rejected(non-finite)",
    "wrong-shape": "rejected(shape)",
    "wrong-token": "rejected(wrong-token)",
    "flood": "rejected(metrics-too-large)",
}


def counted(faults, **runtime):
    strategy = FedBuff(buffer_size=2, fraction_evaluate=0.0)
    client, fleet = client_app(mods=[faults.mod]), Equal(num_nodes=5)
    run(strategy, fleet, rounds=4, client=client, **runtime)
    return strategy.proxy.statistics.by_outcome()


def test_what_is_planned_happens_at_its_job_of_its_node_and_is_counted(tmp_path):
    faults = Faults(tmp_path)
    for node, kind in enumerate(COUNTED):
        faults.at(node=node, job=2, kind=kind)
    outcomes = counted(faults)
    faults.require_fired()
    assert {reason: n for reason, n in outcomes.items() if reason != "applied"} == dict.fromkeys(
        COUNTED.values(), 1
    )
    assert outcomes["applied"] == 20


def test_a_process_that_dies_as_planned_is_one_failure_and_known_to_have_died(tmp_path):
    faults = Faults(tmp_path)
    faults.at(node=3, job=1, kind="die")
    outcomes = counted(faults, workers=1)
    faults.require_fired()
    assert outcomes["failed(client-app-crashed)"] == 1
    assert outcomes["applied"] == 20


def test_a_job_that_hangs_as_planned_is_ended_at_its_limit_and_is_one_failure(tmp_path):
    faults = Faults(tmp_path)
    faults.at(node=3, job=1, kind="hang")
    outcomes = counted(faults, workers=1, job_limit_s=5.0)
    faults.require_fired()
    assert outcomes["failed(client-app-crashed)"] == 1
    assert outcomes["applied"] == 20


def test_what_did_not_happen_is_named(tmp_path):
    faults = Faults(tmp_path)
    faults.at(node=1, job=900, kind="nan")
    counted(faults)
    with pytest.raises(AssertionError, match="did not happen: nan at job 900 of node 1"):
        faults.require_fired()


def test_a_fault_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="kind"):
        Faults(tmp_path).at(node=0, job=1, kind="earthquake")
