"""The mod by which nodes tell their partition."""

import pytest
from flwr.app import Context, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedagent.client.mods import partition_id_mod

NODE = 5


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_reply_says_whose_partition_it_is_about(kind):
    assert _reply_metrics(kind, {"partition-id": 3, "num-partitions": 5}) == {
        "loss": 0.5,
        "partition-id": 3,
    }


def test_a_node_without_partition_answers_as_ever():
    assert _reply_metrics("train", {}) == {"loss": 0.5}


def test_an_error_reply_has_nothing_to_add_to():
    message = Message(RecordDict(), dst_node_id=NODE, message_type="train")
    context = Context(1, NODE, {"partition-id": 3}, RecordDict(), {})
    failed = Message(Error(1, "no"), reply_to=message)
    assert partition_id_mod(message, context, lambda *_: failed) is failed


def _reply_metrics(kind: str, node_config: dict) -> dict:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, NODE, 1
    message = Message(RecordDict(), dst_node_id=NODE, message_type=kind)
    content = RecordDict({"metrics": MetricRecord({"loss": 0.5})})
    reply = partition_id_mod(
        message,
        Context(1, NODE, node_config, RecordDict(), {}),
        lambda message, context: Message(content, reply_to=message),
    )
    return dict(reply.content.metric_records["metrics"])
