import json

import pytest

from clients import references
from fedagent.config import build_task, compose
from fedagent.errors import ConfigurationError

SMALL = ["app=regression", "fleet.num_nodes=3", "client.batch_size=1000", "device=cpu"]


def printed(capsys, *words):
    references.main([*SMALL, *words])
    return json.loads(capsys.readouterr().out)


def test_both_numbers_are_printed_and_pooled_data_beats_the_simple_one(capsys):
    found = printed(capsys, "local_steps=5", "stopping.max_updates=40")
    assert found["centralised"]["loss"] < found["baseline"]["loss"]
    assert found["centralised"]["num-examples"] == found["baseline"]["num-examples"] == 96


def test_the_reference_does_as_many_steps_as_all_nodes_of_a_run_together(capsys):
    many, same, few = (
        printed(capsys, f"local_steps={steps}", f"stopping.max_updates={updates}")["centralised"]
        for steps, updates in ((4, 10), (10, 4), (4, 4))
    )
    assert many == same
    assert many["loss"] < few["loss"]


def test_settings_are_chosen_by_the_nodes_validation_data(capsys):
    found = printed(capsys, "evaluate_on=validation", "stopping.max_updates=10")
    assert "loss-worst" in found["centralised"]
    assert "loss-worst" not in found["baseline"]


def test_what_a_task_says_of_pooled_data_changes_the_clients_settings(capsys, monkeypatch):
    words = "local_steps=1", "stopping.max_updates=10"
    slow = printed(capsys, *words)["centralised"]
    task = type(build_task(compose(" ".join(SMALL), references.CONF)))
    monkeypatch.setattr(task, "central", {"learning_rate": 0.5})
    assert printed(capsys, *words)["centralised"]["loss"] < slow["loss"]


def test_a_run_without_an_end_in_updates_says_what_is_missing(capsys):
    with pytest.raises(ConfigurationError, match=r"set stopping\.max_updates"):
        printed(capsys, "stopping=seconds")
