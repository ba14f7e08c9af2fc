"""What a strategy sees of a fleet, and how what it writes finds its nodes."""

import itertools

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedagent._flower import identify_process
from fedagent.strategies.cohort import Cohort, Instructions

MODEL = ArrayRecord()


@pytest.fixture(autouse=True)
def _identity():
    identify_process(1, 1, 1)


def message(node_id, kind="train", **records):
    return Message(RecordDict({"arrays": MODEL, **records}), dst_node_id=node_id, message_type=kind)


def job(node_id, **config):
    return message(node_id, config=ConfigRecord({"fedagent-token": str(node_id), **config}))


@pytest.mark.parametrize(
    ("node_ids", "wanted", "seen"),
    [
        ([7, 8, 9], 1, [7, 8, 9]),
        ([7, 8, 9], 3, [7, 8, 9]),
        ([2, 5], 5, [2, 5, 1, 3, 4]),
        ([], 2, [1, 2]),
        (itertools.count(10), 1, list(range(10, 1010))),
        (itertools.count(10), 1500, list(range(10, 1510))),
    ],
    ids=["all", "exactly", "too-few", "none", "very-many", "very-many-wanted"],
)
def test_a_strategy_sees_the_nodes_and_never_too_few(node_ids, wanted, seen):
    assert Cohort(node_ids, wanted).get_node_ids() == seen


def test_a_strategy_that_talks_to_nodes_itself_is_told_what_to_do():
    with pytest.raises(RuntimeError, match="Return them"):
        Cohort([1, 2], 1).send_and_receive([])


def test_a_node_gets_its_own_message_and_others_take_turns():
    told = [message(n, config=ConfigRecord({"for": n})) for n in (1, 2, 3)]
    instructions = Instructions(told, MODEL, "config")
    heard = []
    for node_id in (2, 8, 9, 2, 10, 11):
        instructions.complete(to := job(node_id), ConfigRecord())
        heard.append(to.content["config"]["for"])
    assert heard == [2, 1, 2, 2, 3, 1]


def test_what_a_job_must_say_wins_over_what_the_strategy_says():
    told = message(1, config=ConfigRecord({"fedagent-token": "stale", "local-steps": 9, "mu": 0.5}))
    to = job(1, **{"local-steps": 3})
    Instructions([told], MODEL, "config").complete(to, ConfigRecord({"lr": 0.1}))
    expected = {"fedagent-token": "1", "local-steps": 3, "mu": 0.5}
    assert dict(to.content["config"]) == expected


@pytest.mark.parametrize("messages", [[], [("nothing", {})]], ids=["no-message", "no-config"])
def test_without_a_word_from_the_strategy_a_node_is_told_the_run_s_settings(messages):
    told = [message(1, **records) for _, records in messages]
    to = job(1)
    Instructions(told, MODEL, "config").complete(to, ConfigRecord({"lr": 0.1}))
    assert dict(to.content["config"]) == {"fedagent-token": "1", "lr": 0.1}


def test_a_client_that_changes_what_it_was_told_changes_it_for_itself_only():
    told = message(1, config=ConfigRecord({"lr": 0.1}), extra=MetricRecord({"mu": 1.0}))
    instructions, first, second = Instructions([told], MODEL, "config"), job(1), job(1)
    instructions.complete(first, ConfigRecord())
    first.content["config"]["lr"] = first.content["extra"]["mu"] = 9.0
    instructions.complete(second, ConfigRecord())
    assert (second.content["config"]["lr"], second.content["extra"]["mu"]) == (0.1, 1.0)


def test_the_model_of_a_job_is_its_own_unless_the_strategy_sends_another():
    other, own = ArrayRecord(), ArrayRecord()
    for sent, expected in ((MODEL, own), (other, other)):
        to = Message(RecordDict({"arrays": own, "config": ConfigRecord()}), 1, "train")
        told = Message(RecordDict({"arrays": sent, "config": ConfigRecord()}), 1, "train")
        Instructions([told], MODEL, "config").complete(to, ConfigRecord())
        assert (to.content["arrays"] is own) == (expected is own)
