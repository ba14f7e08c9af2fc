"""The node's end of a codec: encoded replies, what is left out, and models that move."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedagent import keys
from fedagent.client.mods import codec, codec_mod
from fedagent.model import ModelSpec
from fedagent.wire.codec import Draws, decode
from fedagent.wire.codecs import codec_of
from fedagent.wire.packed import pack
from fedagent.wire.records import to_record

NODE = 5
START = {
    "w": np.array([[0.0, 0.0], [0.0, 0.0]], np.float32),
    "seen": np.array(3),
    "mask": np.array([0.0, -np.inf], np.float32),
}
SPEC = ModelSpec.of(START)


class Node:
    """One node's memory, and an app that adds `step` to what it gets."""

    def __init__(self, up="topk:0.2", feedback=1.0):
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, NODE, 1
        self.context = Context(1, NODE, {}, RecordDict(), {})
        self.order = {"up": up, "seed": 1} | ({"feedback": feedback} if feedback else {})
        self.got = []

    def job(self, step, token, tokens=(), model=START, record=None, kind="train", **told):
        order = {**self.order, "token": token, "tokens": list(tokens), **told}
        content = {"arrays": record or to_record(model), keys.CODEC: ConfigRecord(order)}
        message = Message(RecordDict(content), dst_node_id=NODE, message_type=kind)

        def train(message, context):
            assert set(message.content) == {"arrays"}
            arrays = {k: a.numpy() for k, a in message.content["arrays"].items()}
            self.got.append(arrays)
            message.content["arrays"].to_torch_state_dict(keep_input=False)  # as Flower users do
            trained = {**arrays, "w": arrays["w"] + step, "seen": arrays["seen"] + 1}
            content = {"arrays": to_record(trained), "metrics": MetricRecord({"num-examples": 1})}
            return Message(RecordDict(content), reply_to=message)

        return codec_mod(message, self.context, train)

    def sent(self, *args, **told):
        """Do a job; return the update that its reply stands for."""
        return self.read(self.job(*args, **told))

    def read(self, reply):
        record = reply.content["arrays"]
        assert set(record) == {keys.ENCODED, "seen"}
        out = np.empty(SPEC.num_parameters, np.float32)
        data = record[keys.ENCODED].numpy()
        list(decode(codec_of(self.order["up"]), data, SPEC, self.order["seed"], out))
        return out[:4].reshape(2, 2)


STEP = np.array([[4.0, 3.0], [2.0, 1.0]], np.float32)


def test_what_is_left_out_joins_the_next_update():
    node = Node()
    assert node.sent(STEP, "a").tolist() == [[4.0, 0.0], [0.0, 0.0]]
    assert node.sent(STEP, "b", ["a"]).tolist() == [[0.0, 6.0], [0.0, 0.0]]
    assert node.sent(STEP, "c", ["b"]).tolist() == [[8.0, 0.0], [0.0, 0.0]]


def conserved(jobs=40, up="topk:0.5+int4"):
    """All that was learned was sent, but for what is left."""
    node, total, last = Node(up), np.zeros((2, 2)), []
    for job in range(jobs):
        total += node.sent(STEP, str(job), last)
        last = [str(job)]
    kept = node.context.state.array_records["codec-residual-" + last[0]]
    left = np.zeros(SPEC.num_parameters, np.float32)
    codec._add(left, kept[codec._VECTOR].numpy(), SPEC, 1.0)
    np.testing.assert_allclose(total + left[:4].reshape(2, 2), jobs * STEP, rtol=5e-3)
    assert abs(left).max() < 5 * STEP.max()  # and that does not grow


def test_nothing_is_lost_and_nothing_counts_twice():
    conserved()
    conserved(up="int4")


def test_of_a_refused_or_lost_update_nothing_is_left():
    node, control = Node(), Node()
    node.sent(STEP, "a")
    node.sent(100 * STEP, "refused", ["a"])
    control.sent(STEP, "a")
    assert np.array_equal(node.sent(STEP, "b", ["a"]), control.sent(STEP, "b", ["a"]))
    fresh = Node()
    fresh.sent(100 * STEP, "lost")
    assert fresh.sent(STEP, "a", [""]).tolist() == [[4.0, 0.0], [0.0, 0.0]]


def test_a_job_that_waited_goes_on_from_the_one_before_it():
    node = Node()
    node.sent(STEP, "a", ["", "b"])
    assert node.sent(STEP, "b", ["", "a"]).tolist() == [[0.0, 6.0], [0.0, 0.0]]


def test_a_residual_can_count_less_with_age():
    node = Node()
    node.sent(STEP, "a")
    assert node.sent(STEP, "b", ["a"], feedback=0.25).tolist() == [[4.0, 0.0], [0.0, 0.0]]


def test_without_feedback_the_node_keeps_nothing():
    node = Node(feedback=None)
    node.sent(STEP, "a")
    assert node.sent(STEP, "b", ["a"]).tolist() == [[4.0, 0.0], [0.0, 0.0]]
    assert not node.context.state


def far_from_the_optimum(feedback):
    """Return how far two nodes' model ends from the middle of their targets."""
    targets = [np.array([[10.0, 1.0], [2.0, 0.5]]), np.array([[-10.0, 1.0], [2.0, 0.5]])]
    nodes, last = [Node(feedback=feedback) for _ in targets], [[], []]
    x = np.zeros((2, 2), np.float32)
    for job in range(200):
        k = job % 2
        step = (0.1 * (targets[k] - x)).astype(np.float32)
        x = x + nodes[k].sent(step, str(job), last[k], {**START, "w": x})
        last[k] = [str(job)]
    return abs(x - sum(targets) / 2).max()


def test_on_quadratics_feedback_finds_what_no_compression_finds_and_without_it_does_not():
    """A node without feedback only ever sends where the nodes disagree."""
    assert far_from_the_optimum(1.0) < 1.1  # a step of what no compression does: 0.1 * 10
    assert far_from_the_optimum(None) > 1.9  # nothing of the second row is ever sent


def test_the_rate_on_a_quadratic_is_that_of_no_compression():
    """x' = x + rate (t - x): (1 - rate)^n is left, and the residual delays it a little."""
    for up, limit in (("packed", 1.01), ("int8", 1.2), ("topk:0.5", 3.0)):
        node, x, last = Node(up, feedback=1.0), np.zeros((2, 2), np.float32), []
        for job in range(60):
            x = x + node.sent(0.1 * (STEP - x), str(job), last, {**START, "w": x})
            last = [str(job)]
        assert abs(x - STEP).max() / STEP.max() < limit * 0.9**60 + 1e-6


def _dropped(vector, residual, spec, weight):
    return None


def _twice(vector, residual, spec, weight, add=codec._add):
    add(vector, residual, spec, 2 * weight)


def _rounded_down(self, count):
    return np.zeros(count, np.float32)


@pytest.mark.parametrize("mistake", [_dropped, _twice])
def test_a_planted_mistake_shows(mistake, monkeypatch):
    monkeypatch.setattr(codec, "_add", mistake)
    with pytest.raises(AssertionError):
        conserved()


def test_biased_rounding_shows(monkeypatch):
    from tests.wire.test_codecs import (
        test_a_quantiser_is_right_on_average_and_within_its_variance as check,
    )

    monkeypatch.setattr(Draws, "uniform", _rounded_down)
    with pytest.raises(AssertionError):
        check(8)


# --- what is not encoded -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["evaluate", "query"])
def test_what_is_no_training_is_left_as_it_is(kind):
    assert set(Node().job(STEP, "a", kind=kind).content["arrays"]) == set(START)


def test_what_cannot_be_encoded_travels_whole_and_the_residual_stays():
    node = Node()
    node.sent(STEP, "a")
    assert set(node.job(np.full((2, 2), np.nan), "b", ["a"]).content["arrays"]) == set(START)
    assert node.sent(STEP, "c", ["b"]).tolist() == [[0.0, 6.0], [0.0, 0.0]]


def test_a_packed_model_is_unpacked_for_any_app_and_kind():
    node = Node()
    node.job(STEP, "a", record=pack(to_record(START)), kind="evaluate")
    assert {k: v.tolist() for k, v in node.got[0].items()} == {
        k: v.tolist() for k, v in START.items()
    }


def test_a_message_without_an_order_is_not_touched():
    message = Message(RecordDict({"arrays": to_record(START)}), NODE, "train")
    assert codec_mod(message, None, lambda m, c: m) is message


def difference(values):
    data = np.array([*values, 0, 0], "<f4").view(np.uint8)
    return ArrayRecord({keys.ENCODED: Array(data), "seen": Array(np.array(9))})


def test_a_difference_is_added_to_the_model_that_the_node_holds():
    node = Node()
    node.job(STEP, "a", down="packed")
    node.job(STEP, "b", ["a"], record=difference([1, 2, 3, 4]), down="packed", held="a")
    assert node.got[1]["w"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert node.got[1]["mask"].tolist() == [0.0, -np.inf]
    assert node.got[1]["seen"] == 9
    node.job(STEP, "c", ["b"], record=difference([1, 1, 1, 1]), down="packed", held="b")
    assert node.got[2]["w"].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    held = [key for key in node.context.state if key.startswith("codec-held")]
    assert held == ["codec-held-b", "codec-held-c"]  # the second in case that it is not heard of


def test_a_node_without_a_memory_says_so():
    reply = Node().job(STEP, "b", record=difference([1, 2, 3, 4]), down="packed", held="a")
    assert reply.has_error()
    assert "does not hold" in reply.error.reason
