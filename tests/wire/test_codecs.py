"""Every codec: there and back, bounds, and what a liar may send."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedagent.errors import ConfigurationError
from fedagent.model import ModelSpec
from fedagent.wire import codec as wire
from fedagent.wire import positions
from fedagent.wire.codec import Draws, UnencodableError
from fedagent.wire.codecs import codec_of, text_of
from fedagent.wire.npy import MalformedArrayError
from fedagent.wire.packed import pack, unpack
from fedagent.wire.quantised import BUCKET, Quantised
from fedagent.wire.records import digest, to_record

WORDS = ["packed", "half", "bfloat16", "int8", "int4", "int2"]
AROUND = ["topk:0.1", "randk:0.1", "powersgd:2"]
TEXTS = [*WORDS, *AROUND, *(f"{a}+{w}" for a in AROUND for w in WORDS[1:])]

floats = st.sampled_from(["f2", "f4", "f8", "c8"])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
bounded = {"min_value": -1e3, "max_value": 1e3, "allow_nan": False, "allow_infinity": False}


@st.composite
def models(draw):
    """Arrays of any dtype and shape of which some are averaged, and their spec."""
    arrays = {"first": np.ones((2, 3), np.float32)}
    for number in range(draw(st.integers(0, 4))):
        dtype, shape = draw(floats | st.sampled_from(["i4", "?", ">f4"])), draw(shapes)
        arrays[f"a{number}"] = np.zeros(shape, dtype)
    return arrays, ModelSpec.of(arrays)


def a_vector(spec, seed=0):
    return np.random.default_rng(seed).standard_normal(spec.num_parameters).astype(spec.numpy_dtype)


def encoded(text, vector, spec, seed=0):
    return np.frombuffer(b"".join(wire.encode(codec_of(text), vector, spec, seed)), np.uint8)


def decoded(text, data, spec, seed=0):
    out = np.full(spec.num_parameters, np.nan, spec.numpy_dtype)
    for _ in wire.decode(codec_of(text), data, spec, seed, out):
        pass
    return out


@given(models(), st.sampled_from(TEXTS), st.integers(0, 2**63))
@settings(max_examples=150, deadline=None)
def test_whatever_a_spec_holds_comes_back_about_as_it_was(model, text, seed):
    _, spec = model
    vector = a_vector(spec, seed)
    data = encoded(text, vector, spec, seed)
    assert len(data) == wire.num_bytes(codec_of(text), spec)
    back = decoded(text, data, spec, seed)
    if text == "packed":
        assert back.tobytes() == vector.tobytes()
    # A level is the largest number of its block at most; what is left out is lost whole.
    is_rough = any(word in text for word in AROUND)
    largest = abs(vector).max(initial=0)
    limit = {"half": 1e-3, "bfloat16": 8e-3, "int8": 1 / 127, "int4": 1 / 7}
    share = 2.0 if is_rough else limit.get(text, 1.0)
    assert (abs(back - vector) <= share * largest * 1.01 * max(1, is_rough * 9)).all()


@given(models(), st.sampled_from(TEXTS))
@settings(max_examples=60, deadline=None)
def test_what_is_sent_and_what_is_left_are_all_there_was(model, text):
    _, spec = model
    vector = a_vector(spec)
    rest = vector.copy()
    parts = wire.encode(codec_of(text), rest, spec, 7, keep_rest=True)
    sent = decoded(text, np.frombuffer(b"".join(parts), np.uint8), spec, 7)
    np.testing.assert_allclose(sent + rest, vector, rtol=1e-5, atol=1e-5)


def test_more_than_a_block_is_encoded_block_by_block():
    spec = ModelSpec.of({"w": np.zeros((700, 1000), np.float32)})
    vector = a_vector(spec)
    for text in TEXTS:
        back = decoded(text, encoded(text, vector, spec), spec)
        assert np.isfinite(back).all()
        kept = np.count_nonzero(back)
        if text.startswith(("topk:0.1", "randk:0.1")):
            assert kept <= 70_003  # 0.1 of each of three blocks


@given(st.lists(st.integers(0, 999), unique=True, min_size=1).map(sorted))
@settings(max_examples=50, deadline=None)
def test_positions_come_back(chosen):
    data = np.concatenate(positions.encode(np.array(chosen), 1000))
    assert len(data) == positions.num_bytes(len(chosen), 1000)
    assert positions.decode(data, len(chosen), 1000).tolist() == chosen


def test_positions_take_two_bits_more_than_the_logarithm():
    assert positions.num_bytes(2621, 1 << 18) * 8 / 2621 < 8.7  # log2(100) = 6.6


# --- quantisers --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_quantiser_is_right_on_average_and_within_its_variance(bits):
    values = np.random.default_rng(3).standard_normal(BUCKET).astype(np.float32)
    codec, draws, n = Quantised(bits), Draws(1, 0), 4000
    total, squares = np.zeros(BUCKET), np.zeros(BUCKET)
    for _ in range(n):
        data = np.frombuffer(b"".join(codec.encode(values, (BUCKET,), draws)), np.uint8)
        out = np.empty(BUCKET, np.float32)
        codec.decode(data, (BUCKET,), draws, out)
        total += out
        squares += (out - values.astype(float)) ** 2
    step = abs(values).max() / codec.levels
    error = total / n - values
    bound = step / 2 / np.sqrt(n)  # of the mean of n: a standard deviation at most
    assert (abs(error) < 5 * bound).all()
    assert abs(error.mean()) < 4 * bound / np.sqrt(BUCKET)  # a bias of all would show here
    assert (squares / n <= 1.15 * step**2 / 4).all()
    fraction = np.mod(values / step, 1)
    np.testing.assert_allclose(squares.sum() / n, (step**2 * fraction * (1 - fraction)).sum(), 0.05)


def test_rounding_differs_by_seed_and_segment_only():
    spec = ModelSpec.of({"w": np.zeros(2000, np.float32)})
    vector = a_vector(spec)
    for text in ("int4", "randk:0.1", "powersgd:1"):
        once, again = encoded(text, vector, spec, 5), encoded(text, vector, spec, 5)
        assert once.tobytes() == again.tobytes()
    assert encoded("int4", vector, spec, 6).tobytes() != encoded("int4", vector, spec, 5).tobytes()
    assert not np.array_equal(Draws(5, 0).words(4), Draws(5, 1).words(4))


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-38, 1.0, 3e38])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", ["int8", "int4", "int2"])
def test_any_magnitude_can_be_quantised(scale, dtype, text):
    spec = ModelSpec.of({"w": np.zeros(300, dtype)})
    vector = (scale * np.linspace(-1, 1, 300)).astype(dtype)
    assert abs(decoded(text, encoded(text, vector, spec), spec)).max() <= scale * 1.001


@pytest.mark.parametrize("text", [t for t in TEXTS if t != "packed"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(text, bad):
    spec = ModelSpec.of({"w": np.zeros((20, 20), np.float32)})
    vector = a_vector(spec)
    vector[7] = bad
    with pytest.raises(UnencodableError):
        encoded(text, vector, spec)


def test_half_precision_refuses_what_overflows():
    spec = ModelSpec.of({"w": np.zeros(3, np.float32)})
    with pytest.raises(UnencodableError, match="half"):
        encoded("half", np.full(3, 1e5, np.float32), spec)
    assert decoded("bfloat16", encoded("bfloat16", np.full(3, 2e5, np.float32), spec), spec)[0] > 0


# --- the choice of numbers ---------------------------------------------------------------------


def test_top_k_sends_the_largest():
    spec = ModelSpec.of({"w": np.zeros(100, np.float32)})
    vector = a_vector(spec)
    back = decoded("topk:0.1", encoded("topk:0.1", vector, spec), spec)
    kept = np.flatnonzero(back)
    assert set(kept) == set(np.argsort(-abs(vector))[:10])
    np.testing.assert_array_equal(back[kept], vector[kept])


def test_random_k_chooses_every_number_equally_often():
    spec = ModelSpec.of({"w": np.zeros(95, np.float32)})
    ones = np.ones(95, np.float32)
    counts = sum(
        decoded("randk:0.2", encoded("randk:0.2", ones, spec, s), spec, s) for s in range(2000)
    )
    assert abs(counts / 2000 - 0.2).max() < 0.05


@pytest.mark.parametrize("text", ["topk:0.2", "randk:0.2"])
def test_a_choice_is_a_contraction(text):
    spec = ModelSpec.of({"w": np.zeros(100, np.float32)})
    vector = a_vector(spec)
    left = [
        np.square(decoded(text, encoded(text, vector, spec, s), spec, s) - vector).sum()
        for s in range(300)
    ]
    assert np.mean(left) <= (1 - 0.2) * np.square(vector).sum() * 1.03


def test_a_matrix_of_low_rank_comes_back_whole():
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))).astype(np.float32)
    spec = ModelSpec.of({"bias": np.zeros(5, np.float32), "w": matrix, "v": np.zeros(3, "f4")})
    vector = np.concatenate([np.arange(5, dtype=np.float32), matrix.reshape(-1), np.ones(3, "f4")])
    data = encoded("powersgd:2", vector, spec)
    assert len(data) == 4 * (5 + 2 * 70 + 3)
    np.testing.assert_allclose(decoded("powersgd:2", data, spec), vector, atol=1e-4)


# --- words, whole models -------------------------------------------------------------------------


def test_words_fit_in_any_order():
    assert codec_of("int4+topk:0.1") == codec_of("topk:0.1 + int4")
    assert text_of(["topk:0.1", "int4"]) == "topk:0.1+int4"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("int5", "Did you mean"),
        ("", "unknown"),
        ("int4+int8", "take one"),
        ("topk:0.1+randk:0.1", "around it one"),
        ("topk", "needs a number"),
        ("topk:1.5", "share"),
        ("powersgd:0", "rank"),
        ("powersgd:x", "powersgd:4"),
    ],
)
def test_words_that_do_not_fit_are_told(text, told):
    with pytest.raises(ConfigurationError, match=told):
        codec_of(text)


@given(models())
@settings(max_examples=40, deadline=None)
def test_a_packed_model_is_one_array_of_the_same_bytes(model):
    arrays, _ = model
    record = to_record(arrays)
    packed = pack(record)
    assert len(packed) == 1
    assert digest(to_record(unpack(packed))) == digest(record)


# --- liars ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_another_length_is_refused_before_anything_is_read(text):
    spec = ModelSpec.of({"w": np.zeros((20, 30), np.float32)})
    data = encoded(text, a_vector(spec), spec)
    for wrong in (data[:-1], np.append(data, data[:1]), data[:0]):
        with pytest.raises(MalformedArrayError, match="bytes came"):
            decoded(text, wrong, spec)


@given(st.sampled_from([t for t in TEXTS if t != "packed"]), st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_bytes_come_are_numbers_or_refused(text, data):
    spec = ModelSpec.of({"w": np.zeros((20, 30), np.float32), "b": np.zeros(7, np.float32)})
    honest = encoded(text, a_vector(spec), spec).copy()
    if data.draw(st.booleans()):
        honest[:] = np.frombuffer(data.draw(st.randoms()).randbytes(len(honest)), np.uint8)
    else:
        for place in data.draw(st.lists(st.integers(0, len(honest) - 1), max_size=4)):
            honest[place] = data.draw(st.integers(0, 255))
    with suppress(MalformedArrayError):
        assert decoded(text, honest, spec).shape == (607,)  # the gate looks at every number


@pytest.mark.parametrize("chosen", [[1, 5, 11], [1, 5, 5], [5, 1, 9], [1, 5], [1, 5, 7, 9]])
def test_positions_that_nobody_may_send_are_refused(chosen):
    high = np.zeros(8, bool)
    high[np.array(chosen) // 2 + np.arange(len(chosen))] = True
    lowest = np.packbits(np.array(chosen)[:3] % 2)
    with pytest.raises(MalformedArrayError):
        positions.decode(np.append(lowest, np.packbits(high)), 3, 10)
