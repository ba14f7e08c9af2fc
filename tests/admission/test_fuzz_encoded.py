"""Whatever encoded replies come, each is an update of finite numbers or one rejection."""

import tracemalloc

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagent import keys
from fedagent._flower import DRIVER_NODE_ID, identify_process
from fedagent.admission.gate import Admission
from fedagent.model import FrozenVector, ModelSpec
from fedagent.update import Dispatch, Rejection
from fedagent.wire.codec import encode
from fedagent.wire.codecs import codec_of
from fedagent.wire.records import digest, to_record, views_of
from tests.admission.test_fuzz import CARRIED, MODEL, SIZE
from tests.wire.test_codecs import TEXTS

SPEC = ModelSpec.of(MODEL, CARRIED)
PAYLOAD = to_record(MODEL)
BASE = FrozenVector(SPEC, views_of(PAYLOAD))


@pytest.fixture(scope="module", autouse=True)
def in_a_run():
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)


@st.composite
def replies(draw):
    """An encoded reply, most of them spoiled, and the codec that its dispatch named."""
    text, told = draw(st.sampled_from(TEXTS)), draw(st.sampled_from([*TEXTS, ""]))
    vector = np.array(draw(st.lists(st.floats(-9, 9, width=32), min_size=9, max_size=9)), "f4")
    vector = np.resize(vector, SPEC.num_parameters).astype(SPEC.numpy_dtype)
    data = np.frombuffer(b"".join(encode(codec_of(text), vector, SPEC, 3)), np.uint8).copy()
    for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=6)):
        data[place] = draw(st.sampled_from([0, 1, 127, 128, 255]))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        data = data[: draw(st.integers(0, len(data)))]
    elif kind == 1:
        data = data.astype(draw(st.sampled_from(["i1", "f4", ">u2", "?"])))
    elif kind == 2:
        data = data.reshape(1, -1)
    arrays = {keys.ENCODED: Array(data)}
    if draw(st.booleans()):
        arrays["n"] = Array(
            draw(st.sampled_from([np.array([8, -7]), np.array([1.5]), np.array(1)]))
        )
    if draw(st.integers(0, 5)) == 0:
        arrays[draw(st.sampled_from(["w", "w@rows", "other"]))] = Array(np.zeros(2, np.float32))
    weight = draw(st.sampled_from([1, 20, 1e9, 0, np.nan]))
    content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": weight})}
    return RecordDict(content), text if draw(st.booleans()) else told


@given(st.lists(replies(), min_size=5, max_size=30))
@settings(max_examples=SIZE, deadline=None)
def test_an_encoded_reply_is_an_update_or_a_rejection(some):
    before = digest(PAYLOAD)
    for content, text in some:
        message = Message(RecordDict(), 5, "train")
        dispatch = Dispatch("0", 5, 0, "t", 0.0, 1.0, codec=text, codec_seed=3)
        reply = Message(content, reply_to=message)
        update = Admission().check(reply, dispatch, SPEC, BASE, 0, 0.0)
        if isinstance(update, Rejection):
            assert update.reason
        else:
            assert torch.isfinite(update.delta).all()
            assert update.largest_change == float(update.delta.abs().max())
    assert digest(PAYLOAD) == before


def test_a_lie_about_its_length_costs_no_memory():
    spec = ModelSpec.of({"w": np.zeros(1 << 22, np.float32)})
    base = FrozenVector(spec, {"w": np.zeros(1 << 22, np.float32)})
    header = Array("uint8", (1 << 40,), "numpy.ndarray", to_record({"w": np.zeros(4)})["w"].data)
    content = {
        "arrays": ArrayRecord({keys.ENCODED: header}),
        "metrics": MetricRecord({"num-examples": 1}),
    }
    reply = Message(RecordDict(content), reply_to=Message(RecordDict(), 5, "train"))
    dispatch = Dispatch("0", 5, 0, "t", 0.0, 1.0, codec="int4", codec_seed=3)
    tracemalloc.start()
    update = Admission().check(reply, dispatch, spec, base, 0, 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(update, Rejection)
    assert peak < 1 << 20
