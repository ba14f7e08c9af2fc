"""Large models: how often a model is in memory, and that no temporary has a model's size."""

import sys
import tracemalloc

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from benchmarks.aggregation.replies import Echo, layers, measure_path
from fedagent import FedAsync
from fedagent._flower import DRIVER_NODE_ID, identify_process
from fedagent.admission.gate import Admission
from fedagent.model import FrozenVector, ModelSpec
from fedagent.update import Dispatch, Update
from fedagent.wire.records import to_record, views_of

PARAMETERS = 4_000_000
BYTES = 4 * PARAMETERS


@pytest.fixture(autouse=True)
def _identity():
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("rule", "own"), [("FedAsync", 0), ("FedBuff", 1)])
def test_memory_is_two_models_and_one_per_version_in_flight(rule, own):
    """`own` is what the rule itself keeps: FedBuff one running sum."""
    path = measure_path(20_000_000, rule)
    assert path.versions >= 3
    assert path.peak_models < 2 + path.versions + own + 0.5


def test_a_version_is_in_memory_once():
    grid = Echo(to_record(layers(80_000)))
    strategy = FedAsync(fraction_evaluate=0.0)
    strategy.start(grid, grid.arrays, num_rounds=3)
    version = strategy.proxy._ledger.current
    sent = np.frombuffer(version.payload["3.bias"].data, np.uint8)
    arrays = version.vector._arrays
    assert np.shares_memory(arrays["3.bias"], sent)
    assert not arrays["3.bias"].flags.writeable
    assert version.vector.clone().numpy().tobytes() == b"".join(
        a.numpy().tobytes() for a in version.payload.values()
    )


def peak_bytes(action) -> int:
    """The most memory of NumPy and of bytes that an action had at once."""
    action()
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_admission_takes_the_memory_of_the_update_and_no_more():
    payload = to_record(layers(PARAMETERS))
    arrays = views_of(payload)
    spec = ModelSpec.of(arrays)
    content = RecordDict({"arrays": payload, "metrics": MetricRecord({"num-examples": 1})})
    reply = Message(content, reply_to=Message(RecordDict(), 5, "train"))
    dispatch = Dispatch("m", 5, 0, "", sent_at_s=0.0, deadline_s=1.0)

    def check():
        base = FrozenVector(spec, arrays)
        assert isinstance(Admission().check(reply, dispatch, spec, base, 0, 0.0), Update)

    assert peak_bytes(check) < 1.2 * BYTES


def test_serialising_takes_the_memory_of_the_bytes_and_no_more():
    arrays = layers(PARAMETERS)
    assert peak_bytes(lambda: to_record(arrays)) < 1.05 * BYTES
    assert peak_bytes(lambda: ArrayRecord(list(arrays.values()))) > 1.1 * BYTES, "Flower's own"
