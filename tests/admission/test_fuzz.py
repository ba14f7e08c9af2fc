"""Whatever replies come, no strategy crashes on one, and a refused one changes no byte."""

import os
import warnings

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedagent import rules
from fedagent._flower import DRIVER_NODE_ID, identify_process
from fedagent.admission.gate import Admission
from fedagent.mixing import Mixing, ring
from fedagent.model import FlatModel, FrozenVector, ModelSpec
from fedagent.update import Dispatch, Rejection
from fedagent.wire.records import to_record, views_of

MODEL = {
    "w": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
    "half": np.array([0.5, 60000.0], np.float16),
    "mask": np.array([0.0, -np.inf], np.float32),
    "z": np.array([1 - 2j], np.complex64),
    "low": np.array(np.inf, np.float32),
    "n": np.array([7, -7]),
    "pointer": np.array(3, np.uint8),
    "is_seen": np.array([False, True]),
}
CARRIED = {"pointer": "newest"}

# CI looks at hundreds of replies. FUZZ=350 looks at ten thousand, which takes minutes.
SIZE = int(os.environ.get("FUZZ", "10"))

DTYPES = ["f2", "f4", "f8", ">f4", ">f8", "i1", "i4", "i8", "u1", ">i8", "u8", "?", "c8", "c16"]
anything = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
)


@st.composite
def of_the_form(draw, name: str) -> np.ndarray:
    """An array of nearly the dtype and just the shape of the model's."""
    original = MODEL[name]
    near = {"f": ["f2", "f4", "f8", ">f4"], "c": ["c8", "c16"], "b": ["?"]}
    dtypes = near.get(original.dtype.kind, ["u1", "i4", "i8", ">i8", "u8"])
    if draw(st.booleans()):
        with np.errstate(all="ignore"):
            change = draw(st.sampled_from([0, 1, -1, 3e32, 1e-30, np.nan, np.inf]))
            if original.dtype.kind in "fc":
                return (original + change).astype(original.dtype)
            return original.copy()
    array = draw(hnp.arrays(draw(st.sampled_from(dtypes)), original.shape))
    return np.asarray(array, order=draw(st.sampled_from("CF")))


@st.composite
def replies(draw) -> RecordDict:
    """A reply that is honest, nearly so, or nothing like it."""
    names = draw(st.lists(st.sampled_from(list(MODEL)), unique=True))
    names = list(MODEL) if draw(st.booleans()) else names
    arrays = {name: draw(of_the_form(name)) for name in names}
    if draw(st.integers(0, 3)) == 0:
        arrays[draw(st.sampled_from([*MODEL, "w@rows", "0", "other"]))] = draw(anything)
    if draw(st.integers(0, 5)) == 0:
        arrays = {str(place): array for place, array in enumerate(arrays.values())}
    record = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
    weight = draw(st.sampled_from([1, 1, 20, 1e9, 0.5, 0, -1, np.nan]))
    content = {"arrays": record, "metrics": MetricRecord({"num-examples": weight})}
    if draw(st.integers(0, 5)) == 0:
        content["more"] = draw(st.sampled_from([record, MetricRecord({"loss": 1.0})]))
    return RecordDict(content)


RULES = {
    "ASGD": rules.ASGD,
    "FedAsync": rules.FedAsync,
    "FedBuff": lambda: rules.FedBuff(2),
    "FedNova": lambda: rules.FedNova(2),
    "FADAS": lambda: rules.FADAS(2),
    "CA2FL": lambda: rules.CA2FL(2),
    "PORT": lambda: rules.PORT(2),
    "FedStaleWeight": lambda: rules.FedStaleWeight(2),
    "DCASGD": rules.DCASGD,
    "DelayedNesterov": rules.DelayedNesterov,
    "HeLoCo": rules.HeLoCo,
    "Rescaled": lambda: rules.Rescaled(rules.FedBuff(2)),
    "RingmasterLMO": rules.RingmasterLMO,
    "ACE": rules.ACE,
    "AREA": rules.AREA,
    "Ringmaster": rules.Ringmaster,
    "Rennala": rules.Rennala,
    "Mixing": lambda: Mixing(ring(4)),
}


def bytes_of(model: FlatModel) -> list[bytes]:
    return [array.tobytes() for array in model.arrays().values()]


@pytest.mark.parametrize("name", RULES)
def test_no_reply_crashes_a_rule_or_changes_a_byte_when_it_is_refused(name):
    @settings(max_examples=SIZE, deadline=None)
    @given(st.lists(replies(), min_size=1, max_size=3))
    def fuzz(contents):
        identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
        spec = ModelSpec.of(MODEL, CARRIED)
        model, rule = FlatModel(spec, MODEL), RULES[name]()
        rule.on_start(model)
        payload = to_record(model.arrays())
        base, sent = FrozenVector(spec, views_of(payload)), dict(model.carried)
        for node_id, content in enumerate(contents):
            reply = Message(content, reply_to=Message(RecordDict(), node_id + 1, "train"))
            dispatch = Dispatch("sim-1", node_id + 1, 0, "", sent_at_s=0.0, deadline_s=9.0)
            before = bytes_of(model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                verdict = Admission().check(reply, dispatch, spec, base, 0, 1.0, sent)
                assert bytes_of(model) == before
                if isinstance(verdict, Rejection):
                    continue
                assert torch.isfinite(verdict.delta).all()
                if rule.rejection(verdict) is None:
                    rule.receive(model, verdict)
                arrays = model.arrays()
            assert {k: (a.shape, a.dtype) for k, a in arrays.items()} == {
                k: (a.shape, a.dtype) for k, a in MODEL.items()
            }
            assert arrays["mask"][1] == -np.inf
            assert arrays["is_seen"].tolist() == [False, True]
            assert (arrays["n"] >= MODEL["n"]).all()
        assert [array.data for array in payload.values()] == [
            array.data for array in to_record(MODEL).values()
        ]

    fuzz()
