"""Messages and what Flower does with them: these tests fail when Flower changes."""

import inspect
import subprocess
import sys
import time

import pytest
from flwr.app import (
    DEFAULT_TTL,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.common import constant
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from fedagent._flower import (
    DRIVER_NODE_ID,
    ErrorCode,
    Run,
    aggregate_metricrecords,
    empty_run,
    failed_reply,
    identify_process,
    pulls_over_network,
    reply_from,
    set_message_id,
    with_content,
)
from fedagent.admission.gate import FAILURES
from fedagent.simulation import SimulationGrid
from tests._flower.message import request


def codes(of: type) -> dict[str, int]:
    return {name: value for name, value in vars(of).items() if name.isupper()}


def test_error_codes_are_flowers():
    assert codes(ErrorCode) == codes(constant.ErrorCode)


def test_every_error_code_but_unknown_has_a_name_in_the_counts():
    assert set(FAILURES) == set(codes(constant.ErrorCode).values()) - {ErrorCode.UNKNOWN}


def test_the_driver_is_the_superlink():
    assert DRIVER_NODE_ID == constant.SUPERLINK_NODE_ID


def test_an_empty_run_has_its_id_and_no_app():
    run = empty_run(42)
    assert isinstance(run, Run)
    assert (run.run_id, run.fab_hash, run.override_config) == (42, "", {})


def test_flowers_grid_is_typed_with_the_same_run():
    assert inspect.signature(Grid.set_run).parameters["run"].annotation in (Run, "Run")


def test_messages_speak_for_the_process_that_was_identified():
    identify_process(run_id=11, node_id=12, task_id=13)
    metadata = request().metadata
    assert (metadata.run_id, metadata.src_node_id, metadata.src_task_id) == (11, 12, 13)


@pytest.mark.parametrize("name", ["run_id", "node_id", "task_id"])
def test_every_part_of_the_identity_is_needed(name, monkeypatch):
    """When Flower needs one no longer, or another one, `identify_process` is out of date."""
    monkeypatch.setattr(TaskIdentity, f"_{name}", None)
    with pytest.raises(RuntimeError, match=name):
        request()


def test_a_message_id_that_was_set_is_what_a_reply_refers_to():
    message = request()
    assert message.metadata.message_id == ""
    set_message_id(message, "sim-5")
    assert message.metadata.message_id == "sim-5"
    assert Message(RecordDict(), reply_to=message).metadata.reply_to_message_id == "sim-5"
    assert Message(Error(5), reply_to=message).metadata.reply_to_message_id == "sim-5"


def test_a_message_with_other_content_keeps_its_metadata():
    message = request()
    set_message_id(message, "sim-5")
    other = with_content(message, RecordDict({"metrics": MetricRecord({"loss": 1.0})}))
    assert vars(other.metadata) == vars(message.metadata)
    assert list(other.content) == ["metrics"]
    assert list(message.content) == ["config"]


def test_an_error_in_place_of_a_reply_names_the_message_it_answers():
    reply = failed_reply("m7", ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "torn")
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (4, "torn")
    assert reply.metadata.reply_to_message_id == "m7"


def test_the_grid_of_a_deployment_is_known_and_pulls_by_message_id():
    grid = HttpGrid(token="t")
    assert pulls_over_network(grid)
    assert not pulls_over_network(SimulationGrid.__new__(SimulationGrid))
    assert list(inspect.signature(grid.pull_messages).parameters) == ["message_ids"]


def test_a_reply_that_never_travelled_looks_like_a_nodes():
    reply = reply_from(7, RecordDict({"metrics": MetricRecord({"loss": 1.0})}))
    metadata = reply.metadata
    assert (metadata.src_node_id, metadata.dst_node_id) == (7, DRIVER_NODE_ID)
    assert (metadata.run_id, metadata.message_type) == (1, "train")
    assert metadata.ttl == pytest.approx(DEFAULT_TTL, abs=1.0)
    assert abs(metadata.created_at - time.time()) < 60
    assert reply.has_content()
    assert not reply.has_error()
    assert reply.content["metrics"]["loss"] == 1.0


def test_metrics_are_averaged_by_weight_without_the_weight():
    records = [
        RecordDict({"metrics": MetricRecord({"n": 1, "loss": 4.0, "history": [0.0, 8.0]})}),
        RecordDict({"metrics": MetricRecord({"n": 3, "loss": 8.0, "history": [4.0, 0.0]})}),
    ]
    averaged = aggregate_metricrecords(records, "n")
    assert dict(averaged) == {"loss": 7.0, "history": [3.0, 2.0]}


def test_the_metric_aggregation_is_the_one_fedavg_uses():
    assert FedAvg().train_metrics_aggr_fn is aggregate_metricrecords
    assert FedAvg().evaluate_metrics_aggr_fn is aggregate_metricrecords


def test_nobody_pays_for_the_deployment_who_does_not_use_it():
    module = "flwr.superlink.grid.http_grid"
    words = f"import fedagent, fedagent.simulation, sys; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
