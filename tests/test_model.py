"""The flat model: whatever a state dict holds comes back exactly, and counters only ever grow."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from fedagent import model as module
from fedagent.errors import ConfigurationError
from fedagent.model import BLOCK, FlatModel, FrozenVector, ModelSpec, blocks

FLOATS = ("float16", "float32", "float64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = ("int8", "int16", "int32", "int64", *UNSIGNED)


def flat(arrays) -> FlatModel:
    return FlatModel(ModelSpec.of(arrays), arrays)


def assert_identical(actual, expected) -> None:
    """Same names in the same order, and for each the same shape, dtype and values."""
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert isinstance(actual[name], np.ndarray), name
        assert actual[name].dtype == array.dtype, name
        np.testing.assert_array_equal(actual[name], array, strict=True, err_msg=name)


def batch_norm_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.LazyLinear(2))
    for _ in range(3):
        model(torch.randn(4, 1, 5, 5) * 2 + 1)
    return model


def state_arrays(model: nn.Module):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


# --- there and back ---------------------------------------------------------------------------

any_array = hnp.arrays(
    st.sampled_from([*FLOATS, *INTEGERS, "bool"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements={"allow_nan": False},
)


@settings(max_examples=100, deadline=None)
@given(st.lists(any_array, max_size=6), hnp.arrays("float16", (2,)))
def test_any_mix_of_arrays_comes_back_exactly(arrays, at_least_one_float):
    at_least_one_float[0] = 1.0
    named = {f"array-{i}": array for i, array in enumerate([*arrays, at_least_one_float])}

    assert_identical(flat(named).arrays(), named)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0, dtype=np.float32).reshape(3, 4).T,
        np.arange(12.0, dtype=np.float32)[::-3],
        np.arange(24.0, dtype=np.float64).reshape(2, 3, 4)[:, ::2, 1:],
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.arange(6, dtype=np.int32).reshape(2, 3).T[::-1],
        np.broadcast_to(np.float32(3.0), (2, 2)),
    ],
    ids=["transposed", "reversed", "sliced", "fortran", "integer", "broadcast"],
)
def test_array_that_is_not_contiguous_comes_back_exactly(array):
    arrays = {"first": array, "second": np.array([7.0], np.float32)}

    assert_identical(flat(arrays).arrays(), arrays)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4", ">i8"])
def test_foreign_byte_order_comes_back_exactly(dtype):
    arrays = {"weight": np.array([1.5], np.float32), "foreign": np.array([1, 2, 300], dtype)}

    assert_identical(flat(arrays).arrays(), arrays)


def test_zero_dimensional_arrays_keep_their_shape():
    arrays = {"scale": np.array(2.5, np.float32), "steps": np.array(3), "frozen": np.array(True)}

    model = flat(arrays)

    assert model.spec.num_parameters == 1
    assert {name: a.shape for name, a in model.arrays().items()} == {
        "scale": (),
        "steps": (),
        "frozen": (),
    }


def test_batch_norm_state_dict_round_trip_is_exact():
    model = batch_norm_model()
    arrays = state_arrays(model)

    restored = flat(arrays).arrays()

    assert_identical(restored, arrays)
    assert restored["1.num_batches_tracked"] == 3
    twin = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2))
    twin.load_state_dict({name: torch.from_numpy(a) for name, a in restored.items()})
    images = torch.randn(2, 1, 5, 5)
    assert torch.equal(twin.eval()(images), model.eval()(images))


# --- what is averaged, and in which precision -------------------------------------------------


def test_normalisation_buffers_are_averaged_and_counters_are_carried():
    model = flat(state_arrays(batch_norm_model()))

    assert {"1.running_mean", "1.running_var"} <= set(model.spec.offsets)
    assert set(model.carried) == {"1.num_batches_tracked"}


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_integers_and_booleans_are_no_parameters(dtype):
    model = flat({"weight": np.ones(3, np.float32), "counter": np.ones(5, dtype)})

    assert model.spec.num_parameters == 3
    assert set(model.carried) == {"counter"}


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["float16"], torch.float32),
        (["float32"], torch.float32),
        (["float64"], torch.float64),
        (["float16", "float32", "float64"], torch.float64),
        ([">f8"], torch.float64),
        (["longdouble"], torch.float64),
    ],
)
def test_vector_is_as_wide_as_the_widest_array_and_at_least_float32(dtypes, expected):
    model = flat({dtype: np.ones(2, dtype) for dtype in dtypes})

    assert model.vector.dtype == expected


def test_wide_integer_does_not_widen_the_vector():
    assert (
        flat({"w": np.ones(2, np.float32), "n": np.ones(2, np.int64)}).vector.dtype == torch.float32
    )


def test_float16_parameter_accumulates_steps_smaller_than_its_own_precision():
    model = flat({"weight": np.ones(1, np.float16)})

    for _ in range(1000):
        model.vector.add_(1e-5)  # float16 next to 1 knows steps of 1e-3

    assert model.arrays()["weight"] == np.float16(1.01)


def test_numbers_are_finite_if_each_array_can_hold_its_own():
    spec = flat({"half": np.ones(1, np.float16), "single": np.ones(1, np.float32)}).spec

    finite = {(2.0, 1e10): True, (1e10, 2.0): False, (2.0, np.inf): False, (np.nan, 1e10): False}

    for numbers, expected in finite.items():
        assert spec.holds_finite(torch.tensor(numbers)) is expected, numbers


@pytest.mark.parametrize(
    "beside", [np.array(2**40), np.ones((), bool), np.empty((0, 3), np.float16)], ids=str
)
def test_what_holds_no_number_to_average_is_not_asked_whether_it_is_finite(beside):
    arrays = {"half": np.ones(1, np.float16), "beside": beside, "single": np.ones(1, np.float32)}
    spec = flat(arrays).spec

    assert spec.holds_finite(torch.tensor([2.0, 1e10]))
    assert not spec.holds_finite(torch.tensor([1e10, 2.0]))


@given(st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), min_size=1))
def test_offsets_cover_the_vector_without_gap_or_overlap(shapes):
    shapes.append((2,))  # or there is nothing to train
    spec = ModelSpec.of({f"a{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)})

    covered = [i for part in spec.offsets.values() for i in range(part.start, part.stop)]

    assert covered == list(range(spec.num_parameters))
    assert len(spec.flatten({s.name: np.zeros(s.shape) for s in spec.arrays})[0]) == len(covered)


# --- block by block -----------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(any_array, max_size=6), hnp.arrays("float16", (2,)), st.integers(1, 7))
def test_blocks_of_arrays_are_those_of_the_vector_they_make(arrays, at_least_one_float, size):
    at_least_one_float[0] = 1.0
    named = {f"array-{i}": array for i, array in enumerate([*arrays, at_least_one_float])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", size)
        spec = ModelSpec.of(named)
        averaged = [named[name].reshape(-1) for name in spec.offsets]
        whole = np.concatenate(averaged, dtype=spec.numpy_dtype)
        vector = torch.from_numpy(np.where(np.isfinite(whole), whole, 0))

        pairs = list(blocks(vector, FrozenVector(spec, named)))

        for expected, block in pairs:
            np.testing.assert_array_equal(block.numpy(), expected.numpy(), strict=True)
        assert [len(block) for block, _ in pairs[:-1]] == [size] * (len(pairs) - 1)
        assert sum(len(block) for block, _ in pairs) == len(vector)


def test_a_block_within_one_array_is_a_view_of_it(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.arange(6, dtype=np.float32)}

    first, second, third = FrozenVector(ModelSpec.of(arrays), arrays).blocks()

    assert np.shares_memory(first.numpy(), arrays["a"])
    assert second.tolist() == [4.0, 5.0, 0.0, 1.0]
    assert np.shares_memory(third.numpy(), arrays["b"])


@pytest.mark.parametrize("size", [2, 3, 4, 100])
def test_what_is_not_trained_is_zero_in_every_block(size, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", size)
    mask = np.array([1.0, -np.inf, np.nan, 4.0, np.inf], np.float32)
    arrays = {"a": mask, "b": np.arange(2, dtype=np.float32), "c": mask[::-1].copy()}

    numbers = torch.cat(list(FrozenVector(ModelSpec.of(arrays), arrays).blocks())).tolist()

    assert numbers == [1.0, 0.0, 0.0, 4.0, 0.0, 0.0, 1.0, 0.0, 4.0, 0.0, 0.0, 1.0]


def test_one_array_is_read_from_either_kind_of_vector():
    mask = np.array([[1.0, -np.inf], [np.nan, 4.0]], np.float16)
    arrays = {"first": np.zeros(3, np.float32), "mask": mask}
    spec = ModelSpec.of(arrays)
    frozen = FrozenVector(spec, arrays)

    for vector in (frozen, frozen.clone()):
        read = {s.name: module.array_of(vector, spec, s) for s in spec.arrays}
        assert_identical(read, arrays)


def test_bytes_that_nobody_may_write_to_make_blocks_without_a_warning(recwarn):
    arrays = {"a": np.frombuffer(bytes(8), np.float32)}

    vector = FrozenVector(ModelSpec.of(arrays), arrays).clone()

    vector.fill_(1.0)
    assert arrays["a"].tolist() == [0.0, 0.0]
    assert not recwarn.list


def test_vectors_of_different_lengths_have_no_common_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2)

    with pytest.raises(ValueError, match="zip"):
        list(blocks(torch.zeros(3), torch.zeros(5)))


# --- whose memory -----------------------------------------------------------------------------


def test_model_owns_a_copy_of_what_it_was_given():
    arrays = {"weight": np.ones(3, np.float32), "counter": np.array(4)}
    model = flat(arrays)

    arrays["weight"][:] = -1.0
    arrays["counter"][...] = -1

    assert_identical(model.arrays(), {"weight": np.ones(3, np.float32), "counter": np.array(4)})


def test_arrays_are_views_of_the_vector_where_the_dtype_allows_it():
    model = flat({"single": np.zeros((2, 2), np.float32), "half": np.zeros(2, np.float16)})
    arrays = model.arrays()

    model.vector.fill_(1.0)

    assert arrays["single"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert arrays["half"].tolist() == [0.0, 0.0]


# --- carried counters -------------------------------------------------------------------------


@given(initial=st.integers(0, 50), arrivals=st.lists(st.integers(0, 100)))
def test_carried_counter_never_goes_back_whatever_the_order_of_arrival(initial, arrivals):
    model = flat({"weight": np.zeros(1, np.float32), "counter": np.array(initial)})
    seen = [initial]

    for value in arrivals:
        model.carry({"counter": torch.tensor(value)})
        seen.append(int(model.arrays()["counter"]))

    assert seen == sorted(seen)
    assert seen[-1] == max([initial, *arrivals])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_counter_of_every_integer_type_is_carried_element_by_element(dtype):
    model = flat({"weight": np.zeros(1, np.float32), "counter": np.array([1, 100], dtype)})

    model.carry({"counter": torch.from_numpy(np.array([2, 99], dtype))})

    assert_identical({"counter": model.arrays()["counter"]}, {"counter": np.array([2, 100], dtype)})


def test_flags_that_count_are_carried_as_a_union():
    arrays = {"weight": np.zeros(1, np.float32), "seen": np.array([True, False, False])}
    model = FlatModel(ModelSpec.of(arrays, {"seen": "count"}), arrays)

    model.carry({"seen": torch.tensor([False, True, False])})

    assert model.arrays()["seen"].tolist() == [True, True, False]


def test_published_counter_does_not_change_when_the_next_update_arrives():
    model = flat({"weight": np.zeros(1, np.float32), "counter": np.array(1)})
    published = model.arrays()["counter"]

    model.carry({"counter": torch.tensor(5)})

    assert published == 1


def test_of_what_is_taken_over_the_newest_base_version_wins_whatever_the_order_of_arrival():
    arrays = {"weight": np.zeros(1, np.float32), "pointer": np.array(0)}
    model = FlatModel(ModelSpec.of(arrays, {"pointer": "newest"}), arrays)
    model.version, seen = 5, []

    for value, staleness in [(9, 3), (4, 1), (8, 2), (3, 1), (7, 0), (1, 5)]:
        model.carry({"pointer": torch.tensor(value)}, staleness)
        seen.append(int(model.arrays()["pointer"]))

    assert seen == [9, 4, 4, 3, 7, 7]


# --- state ------------------------------------------------------------------------------------


def test_state_is_a_snapshot_that_restores_everything():
    model = flat({"weight": np.ones(2, np.float32), "counter": np.array(3)})
    model.version = 7
    state = model.state_dict()
    model.vector.fill_(-1.0)
    model.carried["counter"].fill_(-1)
    model.version = 8

    other = flat({"weight": np.zeros(2, np.float32), "counter": np.array(0)})
    other.load_state_dict(state)

    assert other.version == 7
    assert_identical(other.arrays(), {"weight": np.ones(2, np.float32), "counter": np.array(3)})


def test_restored_model_does_not_write_into_its_state():
    state = flat({"weight": np.ones(2, np.float32), "counter": np.array(3)}).state_dict()
    model = flat({"weight": np.zeros(2, np.float32), "counter": np.array(0)})
    model.load_state_dict(state)

    model.vector.fill_(-1.0)
    model.carried["counter"].fill_(-1)

    assert state["vector"].tolist() == [1.0, 1.0]
    assert state["carried"]["counter"] == 3


# --- what cannot be a model -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array(["a"]), "<U1"),
        (np.array([None]), "object"),
        (np.array(["2026-01-01"], "M8[D]"), "datetime64"),
    ],
)
def test_array_that_holds_no_numbers_is_named_with_its_dtype(array, dtype):
    arrays = {"fine": np.zeros(2, np.float32), "block.odd": array}

    with pytest.raises(ConfigurationError, match=rf"'block\.odd' has dtype {dtype}"):
        ModelSpec.of(arrays)


@pytest.mark.parametrize("arrays", [{}, {"counter": np.array(1)}, {"mask": np.array([True])}])
def test_model_without_floating_arrays_says_there_is_nothing_to_train(arrays):
    with pytest.raises(ConfigurationError, match="nothing to train"):
        ModelSpec.of(arrays)


def test_a_policy_for_arrays_that_are_not_there_is_refused():
    arrays = {"weight": np.zeros(1, np.float32), "step": np.array(1)}

    with pytest.raises(ConfigurationError, match=r"'\*\.steps': \.\.\.} fits no array.*'step'"):
        ModelSpec.of(arrays, {"*.steps": "newest"})


@pytest.mark.parametrize("shapes", [[(3,), (2, 2)], [(2, BLOCK), (5,), (3,)]])
def test_blocks_are_the_same_wherever_they_are_put_together(shapes):
    rng = np.random.default_rng(0)
    arrays = {str(i): rng.normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)}
    spec = ModelSpec.of(arrays)
    scratch = spec.empty()
    alone, there = FrozenVector(spec, arrays), FrozenVector(spec, arrays).blocks(scratch)
    for block, same in zip(alone.blocks(), there, strict=True):
        assert torch.equal(block, same)
    assert torch.equal(scratch[-3:], alone.clone()[-3:]), "in the memory that was given"
