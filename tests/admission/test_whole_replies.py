"""Of a model that only its rule understands, everything but the arrays is checked."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedagent import keys
from fedagent._flower import DRIVER_NODE_ID, identify_process
from fedagent.admission.gate import Admission
from fedagent.rules.opaque import OpaqueModel
from fedagent.update import Dispatch, Outcome, Rejection, Update

TREES = ArrayRecord({"0": Array(np.frombuffer(b"grown", np.uint8))})


def check(arrays=TREES, node=5, metrics=None, token="t", answer=None):
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    said = MetricRecord({"num-examples": 20} if metrics is None else metrics)
    echo = ConfigRecord({keys.TOKEN: token})
    content = answer or RecordDict({"arrays": arrays, "metrics": said, "echo": echo})
    reply = Message(content, reply_to=Message(RecordDict(), node, "train"))
    dispatch = Dispatch("id", 5, 2, "t", sent_at_s=1.0, deadline_s=9.0)
    model = OpaqueModel({"0": np.zeros(2, np.uint8)})
    return Admission().check(reply, dispatch, model.spec, model.vector, 3, 4.0)


def test_arrays_of_any_form_pass():
    update = check()
    assert isinstance(update, Update)
    assert (len(update.delta), update.num_examples, update.staleness) == (0, 20.0, 3)
    assert (update.duration_s, update.arrived_s) == (3.0, 4.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arrays": ArrayRecord()}, "array-records"),
        ({"node": 6}, "wrong-node"),
        ({"token": "other"}, "wrong-token"),
        ({"metrics": {"loss": 1.0}}, "num-examples"),
        ({"metrics": {"num-examples": float("nan")}}, "num-examples"),
        ({"metrics": {"num-examples": 1, "many": [0.0] * 20_000}}, "metrics-too-large"),
        ({"answer": Error(2, "died")}, "client-app-raised"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_all_else_is_checked(changes, reason):
    rejection = check(**changes)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == reason
    assert rejection.outcome is (Outcome.FAILED if "answer" in changes else Outcome.REJECTED)
