"""Replies that hold only the rows that changed."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fedagent import AsyncStrategy, keys
from fedagent.client.mods import area_difference_mod, sparse_rows_mod
from fedagent.privacy.secure import Stage
from fedagent.rules import AREA
from fedagent.rules import FedBuff as FedBuffRule
from fedagent.simulation import Scripted
from fedagent.wire.records import to_record
from fedagent.wire.rows import changed_rows
from tests import toy

NODE = 5

TABLE = {"table": np.zeros((50, 3), np.float32), "scale": np.array(1.0, np.float32)}


def sparse_reply(trained: dict, config=None, kind="train") -> dict:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, NODE, 1
    config = {"fedagent-token": "t"} if config is None else config
    content = RecordDict({"arrays": to_record(TABLE), "config": ConfigRecord(config)})
    message = Message(content, dst_node_id=NODE, message_type=kind)

    def train(message: Message, context: Context) -> Message:
        message.content["arrays"].to_torch_state_dict(keep_input=False)  # as Flower users do
        return Message(RecordDict({"arrays": to_record(trained)}), reply_to=message)

    reply = sparse_rows_mod(message, Context(1, NODE, {}, RecordDict(), {}), train)
    return {k: a.numpy() for k, a in reply.content.array_records["arrays"].items()}


def with_rows(**rows) -> dict:
    table = TABLE["table"].copy()
    for row, value in rows.items():
        table[int(row[1:])] = value
    return {**TABLE, "table": table}


def test_only_changed_rows_travel():
    sent = sparse_reply(with_rows(r7=[0.0, 0.0, 2.0], r49=1.0))
    assert set(sent) == {"table", "table@rows", "scale"}
    assert sent["table"].tolist() == [[0.0, 0.0, 2.0], [1.0, 1.0, 1.0]]
    assert sent["table@rows"].tolist() == [7, 49]
    assert sent["table@rows"].dtype == np.int32


def test_an_array_without_a_change_is_no_row():
    sent = sparse_reply(TABLE)
    assert sent["table"].shape == (0, 3)
    assert sent["table@rows"].shape == (0,)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_an_array_without_numbers_travels_whole(shape):
    empty = np.zeros(shape, np.float32)
    assert list(changed_rows("none", empty, empty)) == ["none"]


def test_an_update_that_a_sum_will_hide_is_left_whole():
    config = {"fedagent-token": "t", keys.SECURE: int(Stage.KEEP)}
    assert set(sparse_reply(with_rows(r7=1.0), config)) == {"table", "scale"}


def test_a_row_that_became_nan_is_sent_to_be_refused():
    assert sparse_reply(with_rows(r3=np.nan))["table@rows"].tolist() == [3]


def test_an_array_that_changed_everywhere_travels_whole():
    sent = sparse_reply({**TABLE, "table": np.ones((50, 3), np.float32)})
    assert set(sent) == {"table", "scale"}


@pytest.mark.parametrize(("config", "kind"), [({}, "train"), (None, "evaluate")])
def test_who_cannot_read_rows_gets_whole_arrays(config, kind):
    assert set(sparse_reply(with_rows(r7=1.0), config, kind)) == {"table", "scale"}


@pytest.mark.parametrize("rule", ["FedBuff", "AREA"])
def test_a_run_with_sparse_replies_makes_the_same_bytes(rule):
    def final(mods) -> tuple[bytes, int]:
        app = ClientApp(mods=mods)

        @app.train()
        def _train(message: Message, context: Context) -> Message:
            arrays = {k: a.numpy() for k, a in message.content["arrays"].items()}
            node = int(context.node_config["partition-id"])
            arrays["table"][[node, 20 + node]] += np.random.rand(2, 3).astype(np.float32)
            content = {"arrays": to_record(arrays), "metrics": MetricRecord({"num-examples": 1})}
            return Message(RecordDict(content), reply_to=message)

        log = toy.Log()
        chosen = AREA(4, 1) if rule == "AREA" else FedBuffRule(2)
        result = toy.run(
            AsyncStrategy(chosen, concurrency=3, callbacks=[log], fraction_evaluate=0.0),
            Scripted(num_nodes=4, times=(1.0, 1.3, 2.9, 7.1)),
            rounds=9,
            client=app,
            initial={k: torch.from_numpy(a) for k, a in TABLE.items()},
        ).result
        assert {s.outcome for s in log.settlements if s.reason != "run-ended"} == {"applied"}
        return result.arrays["table"].data, log.statistics.bytes_up

    area = [area_difference_mod] if rule == "AREA" else []
    whole, whole_bytes = final(area)
    sparse, sparse_bytes = final([sparse_rows_mod, *area])
    assert sparse == whole
    assert sparse_bytes < whole_bytes
