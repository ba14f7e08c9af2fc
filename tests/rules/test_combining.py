"""Buffers that are not put together by their mean: closed forms, limits, and lies."""

import numpy as np
import pytest
import torch

from fedagent.errors import ConfigurationError
from fedagent.model import BLOCK, FlatModel, ModelSpec
from fedagent.rules import (
    ACE,
    CA2FL,
    FADAS,
    PORT,
    CentredClipping,
    FedAsync,
    FedBuff,
    FedNova,
    FedStaleWeight,
    GeometricMedian,
    Median,
    Periodic,
    Rennala,
    TrimmedMean,
)
from fedagent.update import Update

ALL = [Median, TrimmedMean, GeometricMedian, CentredClipping]
BUFFERED = [FADAS, FedBuff, FedNova, FedStaleWeight, PORT, Rennala]


def points(*rows) -> list[torch.Tensor]:
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


def model(size: int = 1) -> FlatModel:
    arrays = {"x": np.zeros(size)}
    return FlatModel(ModelSpec.of(arrays), arrays)


def update(delta: float, node: int = 1, staleness: int = 0, examples: float = 1.0) -> Update:
    base = torch.zeros(1, dtype=torch.float64)
    vector = torch.tensor([delta], dtype=torch.float64)
    return Update(node, vector, base, staleness, num_examples=examples, local_steps=1)


@pytest.mark.parametrize(
    ("combining", "rows", "expected"),
    [
        (Median(), ([1.0, 9.0], [2.0, 7.0], [50.0, 8.0]), [2.0, 8.0]),
        (Median(), ([1.0], [2.0], [4.0], [99.0]), [3.0]),  # of an even number the middle two
        (TrimmedMean(0.25), ([-99.0], [1.0], [3.0], [99.0]), [2.0]),
        (TrimmedMean(0.0), ([1.0], [2.0], [6.0]), [3.0]),  # nothing cut: the mean
        (TrimmedMean(0.3), ([1.0], [2.0], [6.0]), [3.0]),  # floor(.9) = 0
        (
            GeometricMedian(steps=40),
            ([0.0, 0.0], [2.0, 0.0], [1.0, 3.0**0.5]),
            [1.0, 3.0**-0.5],
        ),  # Fermat
        (GeometricMedian(), ([0.0], [0.0], [9.0]), [0.0]),
        (CentredClipping(radius=1e9, steps=1), ([1.0], [2.0], [6.0]), [3.0]),  # the mean
        (CentredClipping(radius=1.0, steps=1), ([0.5], [4.0], [400.0]), [2.5 / 3]),
    ],
)
def test_closed_forms(combining, rows, expected):
    assert combining.combine(points(*rows)).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_of_equal_updates_it_is_each_of_them_and_of_one_that_one(kind):
    for rows in (points(*[[3.0, -1.0]] * 5), points([3.0, -1.0])):
        combined = kind().combine(rows)
        assert combined.tolist() == pytest.approx([3.0, -1.0], rel=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_a_minority_cannot_take_it_far_whatever_it_sends(kind):
    generator = torch.Generator().manual_seed(1)
    honest = [torch.randn(50, generator=generator) + 2.0 for _ in range(7)]
    lies = [torch.full((50,), huge) for huge in (1e18, -1e18, 1e18)]
    mean = torch.stack(honest).mean(0)
    spread = max(float((h - mean).norm()) for h in honest)
    assert float((kind().combine([*honest, *lies]) - mean).norm()) < 3 * spread


def test_blocks_make_no_difference():
    rows = [torch.arange(BLOCK + 3.0) * k for k in (1.0, 2.0, 5.0)]
    assert torch.equal(Median().combine(rows), rows[1])


def test_centred_clipping_goes_on_from_its_last_result_and_a_copy_does_so_too():
    first, second = CentredClipping(1.0, steps=1), CentredClipping(1.0, steps=1)
    assert float(first.combine(points([5.0], [7.0]))) == 1.0
    second.load_state_dict(first.state_dict())
    assert float(first.combine(points([5.0], [7.0]))) == 2.0
    assert float(second.combine(points([5.0], [7.0]))) == 2.0


@pytest.mark.parametrize("rule", BUFFERED)
def test_any_rule_with_a_buffer_survives_a_lie_that_its_mean_does_not(rule):
    plain, safe = rule(buffer_size=5), rule(buffer_size=5)
    safe.combine_with(Median())
    moved = []
    for each in (plain, safe):
        x = model()
        for node, delta in enumerate((0.1, 0.1, 0.1, 0.1, -1000.0)):
            each.receive(x, update(delta, node))
        moved.append(float(x.vector))
    assert moved[0] < 0 < moved[1] <= 0.2


def test_late_updates_are_shorter_and_claimed_examples_do_not_count():
    rule, x = FedBuff(3, staleness=lambda tau: 1.0 / (1 + tau)), model()
    rule.combine_with(TrimmedMean(0.0))
    rule.receive(x, update(6.0, 1, staleness=1, examples=1e9))
    rule.receive(x, update(3.0, 2))
    rule.receive(x, update(0.0, 3))
    assert float(x.vector) == pytest.approx((6.0 / 2 + 3.0 + 0.0) / 3)
    assert rule.influence(update(1.0, examples=1e9)) == 1.0


def test_half_a_buffer_is_remembered():
    rules = [FedBuff(3), FedBuff(3)]
    for rule in rules:
        rule.combine_with(Median())
    rules[0].receive(model(), update(1.0))
    rules[0].receive(model(), update(5.0))
    rules[1].load_state_dict(rules[0].state_dict())
    x = model()
    assert rules[1].pending == 2
    assert rules[1].receive(x, update(2.0))
    assert float(x.vector) == 2.0


@pytest.mark.parametrize("rule", [FedAsync(), CA2FL(), ACE()])
def test_a_rule_that_goes_by_more_than_a_buffer_says_so(rule):
    with pytest.raises(ConfigurationError, match="does not go by a buffer of updates alone"):
        rule.combine_with(Median())
    with pytest.raises(ConfigurationError, match=type(rule).__name__):
        Periodic(rule, 1.0).combine_with(Median())


@pytest.mark.parametrize(
    "build",
    [
        lambda: TrimmedMean(0.5),
        lambda: GeometricMedian(steps=0),
        lambda: GeometricMedian(smoothing=0.0),
        lambda: CentredClipping(radius=0.0),
        lambda: CentredClipping(steps=0),
    ],
)
def test_what_cannot_work_is_refused(build):
    with pytest.raises(ConfigurationError):
        build()
