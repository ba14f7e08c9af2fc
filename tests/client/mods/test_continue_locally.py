"""A node goes on from its own model, and nothing it learned is applied twice."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from fedagent import keys
from fedagent._flower import identify_process
from fedagent.client.mods import continue_locally_mod
from fedagent.update import Kind
from fedagent.wire.records import from_record, to_record


@pytest.fixture(autouse=True)
def _in_a_client_process():
    identify_process(run_id=1, node_id=7, task_id=1)


def job(x, token, unapplied, kind=Kind.TRAIN, count=3):
    config = {keys.TOKEN: token} | ({} if unapplied is None else {keys.UNAPPLIED: unapplied})
    arrays = to_record({"x": np.array([x]), "count": np.array([count])})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})
    return Message(content, dst_node_id=7, message_type=str(kind))


class Node:
    """A ClientApp that adds the next number to x and counts; its state lives on between jobs."""

    def __init__(self, *moves):
        self.moves, self.starts = list(moves), []
        self.context = Context(
            run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={}
        )

    def work(self, message, context):
        arrays = from_record(message.content["arrays"])
        self.starts.append(float(arrays["x"][0]))
        move = self.moves.pop(0)
        if move is None:
            return Message(Error(code=2, reason="it broke"), reply_to=message)
        arrays = {"x": arrays["x"] + move, "count": arrays["count"] + 1}
        return Message(RecordDict({"arrays": to_record(arrays)}), reply_to=message)

    def do(self, *arguments, **options):
        reply = continue_locally_mod(job(*arguments, **options), self.context, self.work)
        return None if reply.has_error() else float(self.arrays(reply)["x"][0])

    @staticmethod
    def arrays(reply):
        return from_record(reply.content["arrays"])


def test_a_job_starts_where_the_unapplied_ones_ended_and_answers_for_itself_alone():
    node = Node(1.0, 2.0, 4.0)
    assert node.do(10.0, "a", []) == 11.0
    assert node.do(10.0, "b", ["a"]) == 12.0, "base 10 + its own 2"
    assert node.do(10.0, "c", ["a", "b"]) == 14.0
    assert node.starts == [10.0, 11.0, 13.0]


def test_what_the_dispatched_model_holds_is_not_added_again():
    node = Node(1.0, 2.0, 4.0)
    node.do(10.0, "a", [])
    node.do(10.0, "b", ["a"])
    assert node.do(10.5, "c", ["b"]) == 14.5  # the proxy applied half of a's update
    assert node.starts[-1] == 12.5


def test_what_was_refused_or_lost_is_forgotten():
    node = Node(1.0, 2.0, 4.0)
    node.do(10.0, "a", [])
    node.do(10.0, "b", [])
    assert not [key for key in node.context.state if key.endswith("a")]
    node.do(10.0, "c", ["a", "b", "another node's memory"])
    assert node.starts == [10.0, 10.0, 12.0]


def test_a_job_that_broke_leaves_nothing_to_go_on_from():
    node = Node(None, 2.0)
    assert node.do(10.0, "a", []) is None
    assert node.do(10.0, "b", ["a"]) == 12.0
    assert node.starts == [10.0, 10.0]


def test_integer_buffers_go_on_from_the_dispatched_ones():
    node = Node(1.0, 2.0)
    node.do(10.0, "a", [], count=3)
    reply = continue_locally_mod(job(10.0, "b", ["a"], count=5), node.context, node.work)
    assert node.arrays(reply)["count"] == [6]


def test_jobs_of_a_proxy_without_prefetch_and_evaluations_are_left_alone():
    node = Node(1.0, 2.0, 4.0)
    node.do(10.0, "a", [])
    assert node.do(20.0, "b", None) == 22.0
    assert node.do(20.0, "c", ["a"], kind=Kind.EVALUATE) == 24.0
    assert node.starts == [10.0, 20.0, 20.0]


def test_a_mask_of_infinities_stays_what_it_is():
    node = Node(1.0, 2.0)
    node.do(-np.inf, "a", [])
    assert node.do(-np.inf, "b", ["a"]) == -np.inf
    assert node.starts == [-np.inf, -np.inf]
