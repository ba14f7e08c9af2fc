"""The gate: good replies become updates, bad ones a counted reason, the model stays as it is."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagent import keys, model
from fedagent._flower import DRIVER_NODE_ID, identify_process
from fedagent.admission.gate import FAILURES, Admission
from fedagent.errors import ConfigurationError
from fedagent.model import ModelSpec
from fedagent.update import Dispatch, Outcome, Rejection, Update
from tests.wire.npy import header_of, raw, wild_bytes

# The counter and the mask are carried, not averaged.
MODEL = {
    "weight": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32),
    "scale": np.array(0.5, np.float32),
    "seen": np.array([7, -7], np.int64),
    "mask": np.array([True, False]),
}
TRAINED = {**{name: MODEL[name] + 1 for name in ("weight", "scale", "seen")}, "mask": MODEL["mask"]}
SPEC = ModelSpec.of(MODEL)
NODE = 5


@pytest.fixture(autouse=True)
def _identity():
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)


def record_of(arrays: dict) -> ArrayRecord:
    return ArrayRecord(
        {k: a if isinstance(a, Array) else Array(np.asarray(a)) for k, a in arrays.items()}
    )


def content(arrays=TRAINED, metrics=None, **records) -> RecordDict:
    """An honest reply's content; `records` come on top."""
    metrics = {"num-examples": 20, "loss": 0.25} if metrics is None else metrics
    return RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord(metrics), **records})


def token(value: str) -> ConfigRecord:
    return ConfigRecord({keys.TOKEN: value})


def reply(answer: RecordDict | Error, node: int = NODE) -> Message:
    identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
    return Message(answer, reply_to=Message(RecordDict(), node, "train"))


def check(answer: RecordDict | Error, node: int = NODE, **admission) -> Update | Rejection:
    """Check a reply and make sure that the base, whatever came, has the bytes it had."""
    base, base_carried = SPEC.flatten(MODEL)
    before = base.numpy().tobytes()
    dispatch = Dispatch("sim-1", NODE, 3, "right", sent_at_s=10.0, deadline_s=99.0, local_steps=4)
    verdict = Admission(**admission).check(
        reply(answer, node), dispatch, SPEC, base, 2, 12.5, base_carried
    )
    assert base.numpy().tobytes() == before
    if isinstance(verdict, Update):
        assert verdict.base is base
    return verdict


# --- good replies ---------------------------------------------------------------------------------


def test_an_honest_reply_becomes_an_update():
    update = check(content())
    assert update.delta.tolist() == [1.0] * 7
    assert update.carried["seen"].tolist() == [8, -6]
    assert (update.node_id, update.num_examples, update.staleness) == (NODE, 20.0, 2)
    assert (update.duration_s, update.local_steps) == (2.5, 4)
    assert update.metrics["loss"] == 0.25


def test_the_order_of_the_arrays_is_the_models_not_the_clients():
    update = check(content(dict(reversed(TRAINED.items()))))
    assert update.delta.tolist() == [1.0] * 7


def test_arrays_in_fortran_order_are_understood():
    trained = {**TRAINED, "weight": np.asfortranarray(MODEL["weight"] * [[1, 2, 3]]).astype("f4")}
    assert b"'fortran_order': True" in Array(trained["weight"]).data
    update = check(content(trained))
    assert update.delta[:6].tolist() == [0.0, 2.0, 6.0, 0.0, 5.0, 12.0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0, 0, 0, 0, math.nan], "non-finite"),
        ([math.nan, 0, 0, 0, 0], "non-finite"),
        ([0, 0, 0, -math.inf, 0], "non-finite"),
        ([3e38, 0, 0, 0, math.nan], "non-finite"),
        ([0, 0, 0, 0, -3e38], "too-large"),
        ([0, 3e38, 0, 0, 0], "too-large"),
    ],
)
def test_a_fault_in_any_block_is_found(monkeypatch, values, reason):
    monkeypatch.setattr(model, "BLOCK", 2)
    spec = ModelSpec.of({"w": np.zeros(5, np.float32)})
    answer = reply(content({"w": np.array(values, np.float32)}))
    dispatch = Dispatch("sim-1", NODE, 3, "right", sent_at_s=0.0, deadline_s=99.0)
    assert Admission().check(answer, dispatch, spec, torch.zeros(5), 0, 0.0).reason == reason


def test_the_delta_is_the_updates_own_memory():
    answer = content()
    sent = answer["arrays"]["weight"].data
    update = check(answer)
    update.delta.zero_()
    assert update.base[0] == 1.0
    assert answer["arrays"]["weight"].data == sent == Array(TRAINED["weight"]).data


@pytest.mark.parametrize("num_examples", [1, 0.5, 1e9, 10**9])
def test_a_possible_number_of_examples_is_the_weight(num_examples):
    assert check(content(metrics={"num-examples": num_examples})).num_examples == num_examples


def test_the_key_of_the_weight_can_be_chosen():
    update = check(content(metrics={"samples": 3}), weighted_by_key="samples")
    assert update.num_examples == 3.0


@pytest.mark.parametrize("require_token", [False, True])
def test_a_reply_that_echoes_its_token_is_accepted(require_token):
    assert isinstance(check(content(own=token("right")), require_token=require_token), Update)


# --- every reason to refuse -----------------------------------------------------------------------


def claiming(shape: str, **claims) -> Array:
    """A few bytes that say they are an array of any size."""
    return raw(header_of(shape=shape), version=(2, 0), shape=(2, 3), **claims)


def weight(array) -> RecordDict:
    return content({**TRAINED, "weight": array})


def with_value(value: float) -> RecordDict:
    array = TRAINED["weight"].copy()
    array[1, 2] = value
    return weight(array)


def without(*names: str, **more) -> dict:
    return {**{k: a for k, a in TRAINED.items() if k not in names}, **more}


METRICS = MetricRecord({"num-examples": 1})


def with_seen(*counts: int) -> RecordDict:
    return content(without("seen", seen=np.array(counts, np.int64)))


REFUSED = {
    "wrong token": (content(own=token("wrong")), "wrong-token"),
    "one right token and one wrong": (
        content(own=token("right"), other=token("wrong")),
        "wrong-token",
    ),
    "empty token": (content(own=token("")), "wrong-token"),
    "no MetricRecord": (RecordDict({"arrays": record_of(TRAINED)}), "metric-records"),
    "two MetricRecords": (content(more=MetricRecord({"num-examples": 1})), "metric-records"),
    "no weight": (content(metrics={"loss": 1.0}), "num-examples"),
    "weight in a list": (content(metrics={"num-examples": [1.0, 2.0]}), "num-examples"),
    "weight 0": (content(metrics={"num-examples": 0}), "num-examples"),
    "weight -1": (content(metrics={"num-examples": -1}), "num-examples"),
    "weight NaN": (content(metrics={"num-examples": math.nan}), "num-examples"),
    "weight infinity": (content(metrics={"num-examples": math.inf}), "num-examples"),
    "weight 1e12": (content(metrics={"num-examples": 1e12}), "num-examples"),
    "weight beyond all floats": (content(metrics={"num-examples": 10**400}), "metrics-too-large"),
    "metric beyond 64 bits": (
        content(metrics={"num-examples": 1, "n": [1, -(2**63)]}),
        "metrics-too-large",
    ),
    "too many metrics": (
        content(metrics={"num-examples": 1, "a": [0.0] * 10_000}),
        "metrics-too-large",
    ),
    "no ArrayRecord": (
        RecordDict({"metrics": MetricRecord({"num-examples": 1})}),
        "array-records",
    ),
    "two ArrayRecords, and none under the key": (
        RecordDict({"a": record_of(TRAINED), "b": record_of(TRAINED), "m": METRICS}),
        "array-records",
    ),
    "empty ArrayRecord": (content({}), "keys"),
    "extra array": (content(without(extra=np.zeros(1))), "keys"),
    "renamed array": (content(without("scale", Scale=TRAINED["scale"])), "keys"),
    "wider than the model's dtype": (weight(np.full((2, 3), 1e300)), "too-large"),
    "wider than the model's integers": (
        content(without("seen", seen=np.array([2**63, 0], np.uint64))),
        "too-large",
    ),
    "complex": (weight(TRAINED["weight"].astype(np.complex64)), "dtype"),
    "integers": (weight(TRAINED["weight"].astype(np.int32)), "dtype"),
    "declared as another dtype": (
        weight(Array("float64", (2, 3), "numpy.ndarray", Array(TRAINED["weight"]).data)),
        "dtype",
    ),
    "float counter": (content(without("seen", seen=np.array([8.0, -6.0]))), "dtype"),
    "broadcasting shape": (weight(np.zeros((1, 1), np.float32)), "shape"),
    "transposed": (weight(np.zeros((3, 2), np.float32)), "shape"),
    "flattened": (weight(np.zeros(6, np.float32)), "shape"),
    "scalar with an axis": (content(without("scale", scale=np.zeros(1, np.float32))), "shape"),
    "terabytes": (weight(claiming(f"({2**40}, 3)")), "shape"),
    "a header of gigabytes": (weight(claiming("(2, 3)", header_bytes=2**32 - 1)), "malformed"),
    "data cut off": (weight(claiming("(2, 3)")), "malformed"),
    "no data": (weight(Array("float32", (2, 3), "numpy.ndarray", b"")), "malformed"),
    "a pickle": (weight(Array("float32", (2, 3), "pickle", b"\x80\x04.")), "malformed"),
    "NaN": (with_value(math.nan), "non-finite"),
    "infinity": (with_value(math.inf), "non-finite"),
    "minus infinity": (with_value(-math.inf), "non-finite"),
    "a step whose sum overflows": (with_value(3e38), "too-large"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_reply_is_refused_with_its_reason_and_little_memory(what):
    answer, reason = REFUSED[what]
    check(content())  # whatever is imported or cached once
    tracemalloc.start()
    try:
        verdict = check(answer)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(verdict, Rejection)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, reason)
    assert verdict.detail
    assert peak_bytes < 1_000_000


def test_a_reply_of_another_node_is_refused_whatever_it_holds():
    verdict = check(content(own=token("right")), node=6)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "wrong-node")
    assert "node 6 answered for node 5" in verdict.detail


def test_a_missing_token_is_refused_only_where_one_is_required():
    assert isinstance(check(content()), Update)
    assert check(content(), require_token=True).reason == "no-token"


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("max_num_examples", 20, "num-examples"),
        ("max_metric_values", 2, "metrics-too-large"),
    ],
)
def test_what_is_too_much_is_a_setting(limit, value, reason):
    assert isinstance(check(content(), **{limit: value}), Update)
    assert check(content(), **{limit: value - 1}).reason == reason


@pytest.mark.parametrize("limit", [0, -1.0, math.nan])
def test_a_limit_that_admits_nobody_is_refused_by_name(limit):
    with pytest.raises(ConfigurationError, match="max_num_examples"):
        Admission(max_num_examples=limit)


@pytest.mark.parametrize("code", FAILURES)
def test_an_error_in_place_of_a_reply_is_a_failure_with_a_name(code):
    verdict = check(Error(code, "broken sensor"), node=1)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, FAILURES[code])
    assert verdict.detail == "broken sensor"


def test_an_unknown_error_without_a_reason_is_counted_too():
    verdict = check(Error(77))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "unknown-error")
    assert verdict.detail == "error 77: the node gave no reason"


@pytest.mark.parametrize("code", [0, 77, 2**31, *FAILURES])
def test_what_a_node_says_is_cut_and_forges_no_line(code):
    verdict = check(Error(code, "\x1b[2Jfine\nWARNING: all is well" + "x" * 10**6))
    assert verdict.detail.isprintable()
    assert len(verdict.detail) < 1000
    assert verdict.reason in {*FAILURES.values(), "unknown-error"}


@pytest.mark.parametrize("name", ["\x1b[2J\nfine", "x" * 10**6])
def test_names_of_a_clients_arrays_are_cut_and_forge_no_line(name):
    verdict = check(content(without("scale", **{name: TRAINED["scale"]})))
    assert verdict.reason == "keys"
    assert verdict.detail.isprintable()
    assert len(verdict.detail) < 1000


# --- evaluation -----------------------------------------------------------------------------------


def check_metrics(answer: RecordDict | Error, **admission) -> MetricRecord | Rejection:
    dispatch = Dispatch("sim-1", NODE, 3, "right", sent_at_s=0.0, deadline_s=99.0)
    return Admission(**admission).check_metrics(reply(answer), dispatch)


def test_metrics_of_an_evaluation_need_no_arrays():
    metrics = MetricRecord({"num-examples": 4, "accuracy": 0.9})
    assert check_metrics(RecordDict({"metrics": metrics})) == metrics


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Error(2, "broken sensor"), "client-app-raised"),
        (RecordDict(), "metric-records"),
        (content(metrics={"num-examples": 1e12}), "num-examples"),
        (content(own=token("wrong")), "wrong-token"),
    ],
)
def test_a_bad_evaluation_is_refused_like_a_bad_update(answer, reason):
    assert check_metrics(answer).reason == reason


# --- anything at all ------------------------------------------------------------------------------

GOOD = Array(TRAINED["weight"]).data
FLOATS = st.floats(width=32)

bytes_of_arrays = st.one_of(
    wild_bytes(GOOD, GOOD[-24:]),
    st.lists(FLOATS, min_size=6, max_size=6).map(
        lambda values: Array(np.array(values, np.float32).reshape(2, 3)).data
    ),
)
array = st.builds(
    Array,
    st.sampled_from(["float32", "float64", "nonsense", ""]),
    st.sampled_from([(2, 3), (), (6,), (-1,), (2**40,)]),
    st.sampled_from(["numpy.ndarray", "torch", ""]),
    bytes_of_arrays,
)
likely_array = st.builds(
    Array, st.just("float32"), st.just((2, 3)), st.just("numpy.ndarray"), bytes_of_arrays
)
metric = st.one_of(
    FLOATS, st.integers(), st.just(10**400), st.lists(FLOATS, max_size=2), st.just(20)
)


@settings(max_examples=300, deadline=None)
@given(
    weight=likely_array | array,
    num_examples=metric,
    tokens=st.lists(st.sampled_from(["right", "", "wrong"]) | st.integers(), max_size=2),
    require_token=st.booleans(),
)
def test_whatever_comes_is_a_sound_update_or_a_rejection(
    weight, num_examples, tokens, require_token
):
    answer = content({**TRAINED, "weight": weight}, {"num-examples": num_examples})
    for number, value in enumerate(tokens):
        answer[f"token-{number}"] = ConfigRecord({keys.TOKEN: value})
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdict = check(answer, require_token=require_token)
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 3_000_000
    if isinstance(verdict, Rejection):
        assert verdict.outcome is Outcome.REJECTED
    else:
        assert torch.isfinite(verdict.delta).all()
        assert verdict.delta.shape == (7,)
        assert 0 < verdict.num_examples <= 1e9
        assert all(t == "right" for t in tokens)


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=6, max_size=6))
def test_any_six_floats_are_admitted_exactly_when_all_steps_are_finite_and_summable(values):
    trained = np.array(values, np.float32).reshape(2, 3)
    verdict = check(weight(trained))
    with np.errstate(over="ignore", invalid="ignore"):
        step = np.abs(trained.astype(np.float64) - MODEL["weight"]).max() * 20
    if not np.isfinite(trained).all():
        assert verdict.reason == "non-finite"
    elif step > 1e-6 * np.finfo(np.float32).max * 1.001:
        assert verdict.reason == "too-large"
    elif step < 1e-6 * np.finfo(np.float32).max * 0.999:
        assert np.array_equal(verdict.delta[:6].numpy(), (trained - MODEL["weight"]).ravel())


# --- replies that hold the changed rows only ------------------------------------------------------


def in_rows(rows, values, **changes) -> RecordDict:
    """A reply that replaces rows of "weight" (2, 3)."""
    rows = rows if isinstance(rows, np.ndarray) else np.array(rows, np.int32)
    arrays = {**TRAINED, "weight": np.array(values, np.float32), "weight@rows": rows}
    return content(arrays | changes)


def test_rows_that_did_not_come_have_not_changed():
    update = check(in_rows([1], [[4.0, 5.0, 7.0]]))
    assert update.delta.tolist() == [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]


def test_rows_equal_the_whole_array():
    whole = check(content())
    assert check(in_rows([0, 1], TRAINED["weight"])).delta.tolist() == whole.delta.tolist()
    assert check(in_rows([], np.zeros((0, 3)))).delta.tolist() == [0.0] * 6 + [1.0]


def test_rows_replace_those_of_a_version_in_pieces():
    frozen = model.FrozenVector(SPEC, MODEL)
    dispatch = Dispatch("sim-1", NODE, 3, "right", sent_at_s=0.0, deadline_s=99.0)
    answer = reply(in_rows([1], [[9.0, 9.0, 9.0]]))
    update = Admission().check(answer, dispatch, SPEC, frozen, 0, 0.0, SPEC.flatten(MODEL)[1])
    assert update.delta.tolist() == [0.0, 0.0, 0.0, 5.0, 4.0, 3.0, 1.0]
    assert MODEL["weight"][1].tolist() == [4.0, 5.0, 6.0]


@pytest.mark.parametrize(
    ("rows", "values", "reason"),
    [
        ([2], [[1, 2, 3]], "rows"),
        ([-1], [[1, 2, 3]], "rows"),
        ([1, 1], [[1, 2, 3]] * 2, "rows"),
        ([1, 0], [[1, 2, 3]] * 2, "rows"),
        ([0, 1, 2], [[1, 2, 3]] * 3, "rows"),
        ([[0]], [[1, 2, 3]], "rows"),
        (np.array(0, np.int32), [[1, 2, 3]], "rows"),
        (np.array([2**40], np.int64), [[1, 2, 3]], "too-large"),
        (np.array([0.0], np.float32), [[1, 2, 3]], "dtype"),
        ([0], [[1, 2, 3]] * 2, "shape"),
        ([0], [[1, 2]], "shape"),
        ([0], [[1, math.nan, 3]], "non-finite"),
        ([0], [[1, 3e38, 3]], "too-large"),
    ],
)
def test_bad_rows_are_refused(rows, values, reason):
    assert check(in_rows(rows, values)).reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"scale@rows": np.array([0], np.int32)},  # it has no rows
        {"seen@rows": np.array([0], np.int32)},  # counters come whole
        {"other@rows": np.array([0], np.int32)},
    ],
)
def test_rows_of_what_has_none_are_refused(changes):
    assert check(in_rows([0], [[1, 2, 3]], **changes)).reason in ("rows", "keys")


ROWS = Array(np.array([1], np.int32)).data


@settings(max_examples=200, deadline=None)
@given(wild_bytes(ROWS, ROWS[-4:]))
def test_whatever_bytes_come_as_rows_are_refused_or_understood(data):
    wild = Array("int32", (1,), "numpy.ndarray", data)
    arrays = {**TRAINED, "weight": np.ones((1, 3), np.float32), "weight@rows": wild}
    verdict = check(content(arrays))
    assert isinstance(verdict, Update) or verdict.reason in ("rows", "malformed", "dtype", "shape")
