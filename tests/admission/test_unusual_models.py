"""Whatever Flower's FedAvg trains is trained: what honest clients of unusual models send."""

import logging

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedagent import AsyncStrategy, FedAsync, FedBuff, asynchronous
from fedagent._flower import DRIVER_NODE_ID, identify_process
from fedagent.admission.gate import Admission
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, FrozenVector, ModelSpec
from fedagent.rules import DCASGD
from fedagent.simulation import Equal
from fedagent.update import Dispatch, Rejection, Update
from fedagent.wire.records import to_record, views_of
from tests.toy import Log, run

INF = np.inf
METRICS = MetricRecord({"num-examples": 1})


def check(initial: dict, arrays, carried=None, content=None, **admission) -> Update | Rejection:
    """Check a reply to version 0 of a model, whose bytes must stay what they were."""
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    spec = ModelSpec.of(initial, carried)
    model = FlatModel(spec, initial)
    payload = to_record(model.arrays())
    before = {name: array.data for name, array in payload.items()}
    content = content or {"arrays": ArrayRecord(_arrays(arrays)), "metrics": METRICS}
    reply = Message(RecordDict(content), reply_to=Message(RecordDict(), 5, "train"))
    dispatch = Dispatch("sim-1", 5, 0, "", sent_at_s=0.0, deadline_s=9.0)
    base = FrozenVector(spec, views_of(payload))
    verdict = Admission(**admission).check(reply, dispatch, spec, base, 0, 1.0, model.carried)
    assert {name: array.data for name, array in payload.items()} == before
    return verdict


def _arrays(arrays):
    if isinstance(arrays, list):
        return {str(place): Array(np.asarray(a)) for place, a in enumerate(arrays)}
    return {name: a if isinstance(a, Array) else Array(np.asarray(a)) for name, a in arrays.items()}


WEIGHT = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
MASK = np.array([[0.0, -INF], [0.0, 0.0]], np.float32)

UNUSUAL = {
    "the same mask of infinities": (
        {"w": WEIGHT, "mask": MASK},
        {"w": WEIGHT + 1, "mask": MASK},
        [1, 1, 1, 1, 0, 0, 0, 0],
    ),
    "NaN that was sent": (
        {"w": np.array([1.0, np.nan], np.float32)},
        {"w": np.array([2.0, np.nan], np.float32)},
        [1, 0],
    ),
    "a mask that a client has filled in": (
        {"w": WEIGHT, "mask": MASK},
        {"w": WEIGHT + 1, "mask": np.zeros((2, 2), np.float32)},
        [1, 1, 1, 1, 0, 0, 0, 0],
    ),
    "an observer that has seen something": (
        {"w": WEIGHT, "low": np.array(INF, np.float32)},
        {"w": WEIGHT + 1, "low": np.array(-3, np.float32)},
        [1] * 4,
    ),
    "complex numbers": (
        {"w": np.array([1 + 2j, 3 - 1j], np.complex64)},
        {"w": np.array([2 + 2j, 3 - 3j], np.complex64)},
        [1, 0, 0, -2],
    ),
    "double precision": ({"w": WEIGHT}, {"w": (WEIGHT + 1).astype("f8")}, [1] * 4),
    "half precision": ({"w": WEIGHT}, {"w": (WEIGHT + 1).astype("f2")}, [1] * 4),
    "single precision of a half model": (
        {"w": WEIGHT.astype("f2")},
        {"w": WEIGHT + 1},
        [1] * 4,
    ),
    "big-endian numbers": ({"w": WEIGHT}, {"w": (WEIGHT + 1).astype(">f4")}, [1] * 4),
    "big-endian counters": (
        {"w": WEIGHT, "n": np.array([1, 2])},
        {"w": WEIGHT, "n": np.array([2, 3], ">i8")},
        [0] * 4,
    ),
    "Fortran order": (
        {"w": WEIGHT},
        {"w": np.array(WEIGHT + np.float32([[1, 2], [3, 4]]), order="F")},
        [1, 2, 3, 4],
    ),
    "narrower integers": (
        {"w": WEIGHT, "n": np.array([1, 2])},
        {"w": WEIGHT, "n": np.array([2, 3], np.int32)},
        [0] * 4,
    ),
    "the head only": (
        {"body": WEIGHT, "head": WEIGHT},
        {"head": WEIGHT + 1},
        [0, 0, 0, 0, 1, 1, 1, 1],
    ),
    "all but the counters": ({"w": WEIGHT, "n": np.array([1])}, {"w": WEIGHT + 1}, [1] * 4),
    "a list": (
        {"w": WEIGHT, "b": WEIGHT[0]},
        [WEIGHT + 1, WEIGHT[0] + 2],
        [1, 1, 1, 1, 2, 2],
    ),
    "a list of more than ten": (
        {f"w{n}": np.full(1, n, np.float32) for n in range(12)},
        [np.full(1, 2 * n, np.float32) for n in range(12)],
        list(range(12)),
    ),
    "names for a list": (
        {"0": WEIGHT, "1": WEIGHT[0]},
        {"w": WEIGHT + 1, "b": WEIGHT[0] + 2},
        [1, 1, 1, 1, 2, 2],
    ),
    "integers that fall": (
        {"w": WEIGHT, "pointer": np.array([7, 7])},
        {"w": WEIGHT + 1, "pointer": np.array([8, 0])},
        [1] * 4,
    ),
    "a flag that is set": (
        {"w": WEIGHT, "is_seen": np.array(False)},
        {"w": WEIGHT + 1, "is_seen": np.array(True)},
        [1] * 4,
    ),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_an_honest_reply_of_an_unusual_model_is_an_update(what):
    initial, arrays, delta = UNUSUAL[what]
    update = check(initial, arrays)
    assert isinstance(update, Update), update
    assert update.delta.tolist() == delta
    assert update.largest_change == max(map(abs, delta))


@pytest.mark.parametrize(
    ("initial", "arrays", "reason"),
    [
        ({"w": WEIGHT, "mask": MASK}, {"w": WEIGHT, "mask": MASK + np.nan}, "non-finite"),
        ({"w": WEIGHT, "mask": MASK}, {"w": WEIGHT + INF, "mask": MASK}, "non-finite"),
        ({"w": WEIGHT, "low": np.array(INF)}, {"w": WEIGHT, "low": np.array(np.nan)}, "non-finite"),
        ({"w": WEIGHT, "low": np.array(INF)}, {"w": WEIGHT, "low": np.array(-INF)}, "non-finite"),
        ({"w": WEIGHT.astype("f2")}, {"w": np.full((2, 2), 1e5, "f4")}, "too-large"),
        ({"w": np.zeros(2, "c8")}, {"w": np.full(2, np.nan * 1j, "c8")}, "non-finite"),
        ({"w": WEIGHT, "b": WEIGHT[0]}, [WEIGHT[0], WEIGHT], "shape"),
        ({"w": WEIGHT, "b": WEIGHT[0]}, [WEIGHT], "keys"),
        ({"w": WEIGHT, "b": WEIGHT[0]}, {"w": WEIGHT, "B": WEIGHT[0]}, "keys"),
        ({"w": WEIGHT, "n": np.uint8([1])}, {"w": WEIGHT, "n": np.int8([-1])}, "too-large"),
        ({"w": WEIGHT, "n": np.uint64([1])}, {"w": WEIGHT, "n": np.int64([-1])}, "too-large"),
    ],
)
def test_what_is_not_a_model_of_this_form_is_refused_as_before(initial, arrays, reason):
    verdict = check(initial, arrays)
    assert getattr(verdict, "reason", None) == reason


def test_what_is_not_finite_never_changes_and_is_published_again():
    initial = {"w": WEIGHT, "mask": MASK, "z": np.array([complex(INF, 1.0)], np.complex64)}
    model = FlatModel(ModelSpec.of(initial), initial)
    model.vector.add_(1.0)
    arrays = model.arrays()
    assert arrays["w"].tolist() == (WEIGHT + 1).tolist()
    assert arrays["mask"].tolist() == [[1.0, -INF], [1.0, 1.0]]
    assert arrays["z"].tolist() == [complex(INF, 2.0)]
    assert torch.isfinite(model.vector).all()


# --- several records ------------------------------------------------------------------------------


def test_of_several_records_the_keys_choose():
    more = {
        "control-variates": ArrayRecord({"w": Array(np.zeros((2, 2)))}),
        "model": ArrayRecord({"w": Array(WEIGHT + 1)}),
        "timing": MetricRecord({"seconds": 1.0}),
        "metrics": MetricRecord({"samples": 3}),
    }
    update = check(
        {"w": WEIGHT}, {}, content=more, arrayrecord_key="model", weighted_by_key="samples"
    )
    assert update.delta.tolist() == [1] * 4
    assert (update.num_examples, dict(update.metrics)) == (3.0, {"samples": 3})


def test_two_records_with_a_weight_are_ambiguous():
    content = {"arrays": ArrayRecord({"w": Array(WEIGHT)}), "a": METRICS, "b": METRICS}
    assert check({"w": WEIGHT}, {}, content=content).reason == "metric-records"


# --- the policies of what is carried --------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "was", "reply", "becomes"),
    [
        ("count", [1, 1], [3, 2], [3, 2]),
        ("count", [1, 1], [3, 0], [1, 1]),  # no counter: not even the part that grew
        ("count", [1, 1], [1, 2 + 10**9], [1, 1]),
        ("count", [1, -(2**62)], [1, 2**63 - 1], [1, -(2**62)]),
        ("newest", [1, 1], [3, 0], [3, 0]),
        ("keep", [1, 1], [3, 2], [1, 1]),
        ("count", [False, True], [True, True], [True, True]),
        ("count", [False, True], [True, False], [False, True]),
        ("newest", [False, True], [True, False], [True, False]),
        ("keep", [False, True], [True, True], [False, True]),
        ("newest", [0.5, 1.5], [2.5, 0.0], [2.5, 0.0]),
        ("keep", [0.5, 1.5], [2.5, 0.0], [0.5, 1.5]),
        (None, [1, 1], [3, 2], [3, 2]),
        (None, [1, 1], [0, 2], [1, 1]),
        (None, [False, True], [True, True], [False, True]),
    ],
)
def test_a_policy_says_what_becomes_of_a_carried_buffer(policy, was, reply, becomes):
    initial = {"w": WEIGHT, "net.buffer": np.array(was)}
    carried = {"*.buffer": policy} if policy else {}
    update = check(initial, {"w": WEIGHT, "net.buffer": np.array(reply)}, carried)
    model = FlatModel(ModelSpec.of(initial, carried), initial)
    model.carry(update.carried, update.staleness)
    assert model.arrays()["net.buffer"].tolist() == becomes
    assert model.arrays()["net.buffer"].dtype == initial["net.buffer"].dtype


def test_the_newest_base_version_wins_whatever_the_order_of_arrival():
    initial = {"w": WEIGHT, "pointer": np.array(0)}
    model = FlatModel(ModelSpec.of(initial, {"pointer": "newest"}), initial)
    model.version = 5
    for pointer, staleness in ((1, 2), (2, 4), (3, 1), (4, 2), (5, 1)):
        model.carry({"pointer": torch.tensor(pointer)}, staleness)
        if pointer == 2:
            assert int(model.arrays()["pointer"]) == 1
    assert int(model.arrays()["pointer"]) == 5
    restored = FlatModel(model.spec, initial)
    restored.load_state_dict(model.state_dict())
    restored.carry({"pointer": torch.tensor(6)}, 2)
    assert int(restored.arrays()["pointer"]) == 5


def test_the_first_pattern_that_fits_is_the_policy():
    arrays = {"w": WEIGHT, "a.n": np.array(1), "b.n": np.array(1)}
    assert [s.carry for s in ModelSpec.of(arrays, {"a.*": "keep", "*.n": "newest"}).arrays] == [
        None,
        "keep",
        "newest",
    ]


@pytest.mark.parametrize(
    ("carried", "told"),
    [
        ({"*.pointer": "newest"}, r"fits no array of the model, which has 'w', 'n'"),
        ({"w": "count"}, "only integers and booleans count"),
        ({"*": "keep"}, r"nothing to train \('w' is float32\[2, 2\], 'n' is int64\[\]\)"),
    ],
)
def test_policies_that_cannot_work_are_refused_at_start(carried, told):
    with pytest.raises(ConfigurationError, match=told):
        ModelSpec.of({"w": WEIGHT, "n": np.array(1)}, carried)


def test_a_policy_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigurationError, match="'count' or 'newest' or 'keep'"):
        FedBuff(carried={"*": "max"})


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({}, "it is empty"),
        ({"w": np.zeros((0, 3), np.float32)}, r"'w' is float32\[0, 3\]"),
        ({"codes": np.array([1, 2])}, r"'codes' is int64\[2\]"),
        ({"low": np.array([INF], np.float32)}, r"'low' is float32\[1\]"),
    ],
)
def test_a_model_without_a_number_to_train_is_refused_by_name(arrays, told):
    with pytest.raises(ConfigurationError, match=told):
        ModelSpec.of(arrays)


# --- whole runs -----------------------------------------------------------------------------------


def odd_client() -> ClientApp:
    """A client whose flags flip, pointers wrap, observers see and masks are infinite."""
    app = ClientApp()

    @app.train()
    def _train(message: Message, _context) -> Message:
        arrays = {name: a.numpy() for name, a in message.content["arrays"].items()}
        arrays["w"] = arrays["w"] - (0.1 * (arrays["w"] - 1)).astype(arrays["w"].dtype)
        arrays["pointer"] = (arrays["pointer"] + 3) % 8
        arrays["is_seen"] = ~arrays["is_seen"]
        arrays["low"] = np.minimum(arrays["low"], np.float32(-2.0))
        record = ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()})
        return Message(RecordDict({"arrays": record, "metrics": METRICS}), reply_to=message)

    return app


ODD = {
    "w": torch.zeros(3, dtype=torch.complex64),
    "v": torch.zeros(2),
    "mask": torch.from_numpy(MASK),
    "pointer": torch.tensor(6),
    "is_seen": torch.tensor(False),
    "low": torch.tensor(INF),
}
STRATEGIES = {
    "fedasync": FedAsync,
    "fedbuff": lambda **options: FedBuff(buffer_size=4, **options),
    "dc-asgd": lambda **options: AsyncStrategy(DCASGD(), **options),
    "fedavg": lambda **options: asynchronous(FedAvg(), buffer_size=4, **options),
    "fedadam": lambda **options: asynchronous(FedAdam(), buffer_size=4, **options),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_odd_model_is_trained_by_every_kind_of_strategy(name, caplog):
    log = Log()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    strategy = STRATEGIES[name](fraction_evaluate=0.0, callbacks=[log])
    finished = run(strategy, Equal(num_nodes=4), client=odd_client(), initial=ODD, rounds=6)
    outcomes = log.statistics.by_outcome()
    assert {key for key in outcomes if not key.startswith("expired")} == {"applied"}
    arrays = {key: a.numpy() for key, a in finished.result.arrays.items()}
    assert 0.001 < arrays["w"].real.min() <= arrays["w"].real.max() < 2.0
    assert arrays["mask"].tolist() == MASK.tolist()
    assert (arrays["pointer"], arrays["is_seen"], arrays["low"]) == (6, False, -2.0)
    told = [r.getMessage() for r in caplog.records if "carried={" in r.getMessage()]
    assert sorted(message.split(" ")[0] for message in told) == ["'is_seen'", "'pointer'"]
