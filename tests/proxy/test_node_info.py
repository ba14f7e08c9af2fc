"""What nodes of a real fleet say of themselves."""

import logging

import numpy as np
import pytest
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict

from fedagent import FedBuff, _flower
from fedagent.nodes.geography import ByAttribute
from fedagent.proxy.node_info import NodeInfo
from fedagent.scheduling import NodeSettings, PerNode
from tests.toy import Log


class Grid:
    """Nodes that answer everything the next time they are asked, as a SuperLink's would.

    Node 1 has an accelerator, node 2 none, node 3 has no query function.
    """

    def __init__(self):
        self.sent = {}

    def get_node_ids(self):
        return [1, 2, 3]

    def push_messages(self, messages):
        (message,) = messages
        message_id = f"m{len(self.sent)}"
        message.metadata.__dict__["_message_id"] = message_id
        self.sent[message_id] = message
        return [message_id]

    def pull_messages(self, message_ids):
        return [self.answer(self.sent[i]) for i in list(message_ids) if i in self.sent]

    def answer(self, message):
        node_id = message.metadata.dst_node_id
        if message.metadata.message_type != "query":
            metrics = MetricRecord({"num-examples": 1})
            content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        elif node_id == 3:
            return Message(Error(2, "no query function"), reply_to=message)
        else:
            said = MetricRecord({"has-accelerator": int(node_id == 1), "history": [1.0]})
            content = RecordDict({"metrics": said})
        return Message(content, reply_to=message)

    def of_kind(self, kind):
        return [m for m in self.sent.values() if m.metadata.message_type == kind]


CLASSES = PerNode(
    ByAttribute(2, key="has-accelerator"),
    [NodeSettings(local_steps=2), NodeSettings(local_steps=9)],
)


@pytest.fixture
def grid(monkeypatch):
    monkeypatch.setattr("fedagent.proxy.dispatcher.pulls_over_network", lambda grid: True)
    _flower.identify_process(run_id=1, node_id=1, task_id=1)
    return Grid()


def train(grid, **options):
    log = Log()
    strategy = FedBuff(buffer_size=1, callbacks=[log], fraction_evaluate=0.0, **options)
    arrays = ArrayRecord([np.zeros(3, np.float32)])
    strategy.start(grid, arrays, num_rounds=9, timeout=60.0)
    return log


def test_device_classes_hold_from_the_first_job_on(grid):
    train(grid, per_node=CLASSES)
    steps = {}
    for message in grid.of_kind("train"):
        told = message.content["config"].get("local-steps")
        steps.setdefault(message.metadata.dst_node_id, set()).add(told)
    assert steps == {1: {9}, 2: {2}, 3: {None}}


def test_every_node_is_asked_once(grid):
    train(grid, per_node=CLASSES)
    assert sorted(m.metadata.dst_node_id for m in grid.of_kind("query")) == [1, 2, 3]


class DyingGrid(Grid):
    """Raises what Flower does where a SuperLink dies in the middle of the first question."""

    has_died = False

    def push_messages(self, messages):
        if not self.has_died:
            self.has_died = True
            raise RuntimeError("the push session may have expired")
        return super().push_messages(messages)


@pytest.mark.usefixtures("grid")
def test_a_superlink_that_dies_in_the_middle_of_a_question_is_asked_again(caplog):
    caplog.set_level(logging.WARNING, "flwr")
    grid = DyingGrid()
    info = NodeInfo(grid, is_wanted=True)
    assert info.meet([1, 2], 0.0) == []
    assert caplog.text.count("Node 1 cannot be asked") == 1
    assert info.take(grid.pull_messages(list(info.awaited)), 1.0) == []
    assert info.meet([1, 2], 5.0) == [2], "nobody knows what suits node 1"
    assert info.take(grid.pull_messages(list(info.awaited)), 6.0) == []
    assert info.meet([1, 2], 10.0) == [1, 2]
    assert info.of(1)["has-accelerator"] == 1.0
    train(DyingGrid(), per_node=CLASSES, membership_interval_s=0.01)


def test_nobody_is_asked_when_nobody_reads_the_answer(grid):
    train(grid)
    assert grid.of_kind("query") == []


def test_a_node_that_does_not_say_what_it_is_counts_as_no_failure(grid):
    log = train(grid, per_node=CLASSES)
    assert {(s.outcome, s.reason) for s in log.settlements} <= {
        ("applied", ""),
        ("expired", "run-ended"),
    }
    assert not log.statistics.unsolicited


def test_the_time_of_the_answer_and_of_a_step_are_known(grid):
    known = NodeInfo(grid, is_wanted=True)
    known.meet([1, 3], now_s=10.0)
    stranger = Message(Error(2, "of somebody else"), reply_to=grid.sent["m0"])
    stranger.metadata.__dict__["_reply_to_message_id"] = "another"
    replies = [*grid.pull_messages(["m0", "m1"]), stranger]
    assert known.take(replies, now_s=12.5) == [stranger]
    assert not known.awaited
    known.observe(1, 6.0, local_steps=4)
    known.observe(3, 6.0, local_steps=None)
    assert known.of(1) == {"has-accelerator": 1.0, "latency-s": 2.5, "seconds-per-step": 1.5}
    assert known.of(3) == known.of(99) == {}


def test_a_newcomer_gets_no_work_before_it_has_said_what_it_is_or_had_a_minute_to(grid):
    known = NodeInfo(grid, is_wanted=True)
    assert known.meet([1], now_s=500.0) == []
    assert known.meet([1, 2], now_s=530.0) == []
    known.take(grid.pull_messages(["m1"]), now_s=531.0)
    assert known.meet([1, 2], now_s=531.0) == [2]
    assert known.meet([1, 2], now_s=560.0) == [1, 2], "node 1 has had its minute"


def test_what_is_known_of_a_node_that_left_is_forgotten(grid):
    known = NodeInfo(grid, is_wanted=True)
    known.meet([1, 2], now_s=0.0)
    known.take(grid.pull_messages(["m0", "m1"]), now_s=1.0)
    known.meet([2], now_s=5.0)
    assert known.of(1) == {}
    known.observe(1, 6.0, local_steps=4)  # a late reply
    assert known.of(1) == {}
    known.meet([1, 2], now_s=10.0)
    assert [m.metadata.dst_node_id for m in grid.of_kind("query")] == [1, 2, 1], "asked again"


def test_nodes_that_nobody_asks_may_all_be_given_work_as_they_are(grid):
    population = range(5, 10)
    assert NodeInfo(grid, is_wanted=False).meet(population, 0.0) is population
