"""Staleness weights: the values of the papers, and what must hold for every function of tau."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.rules.staleness import (
    constant,
    delay_adaptive,
    exponential,
    harmonic,
    hinge,
    polynomial,
    product,
    threshold,
)

EVERY_WEIGHT = {
    "constant": constant,
    "polynomial": polynomial,
    "polynomial-steep": partial(polynomial, a=3.0),
    "hinge": hinge,
    "hinge-shallow": partial(hinge, a=0.25, b=0.0),
    "exponential": exponential,
    "exponential-steep": partial(exponential, beta=2.0),
    "harmonic": harmonic,
    "harmonic-shallow": partial(harmonic, beta=0.1),
    "threshold": partial(threshold, limit=3),
    "threshold-zero": partial(threshold, limit=0),
    "delay-adaptive": partial(delay_adaptive, concurrency=4),
    "delay-adaptive-single": partial(delay_adaptive, concurrency=1),
    "product": product(polynomial, hinge, exponential),
}

for_every_weight = pytest.mark.parametrize("weight", EVERY_WEIGHT.values(), ids=EVERY_WEIGHT.keys())


@pytest.mark.parametrize(
    ("weight", "tau", "expected"),
    [
        (constant, 1000, 1.0),
        (polynomial, 3, 0.5),  # 4^-0.5
        (partial(polynomial, a=1.0), 4, 0.2),  # 1/5
        (hinge, 4, 1.0),  # at the threshold: still fresh
        (hinge, 5, 1 / 11),  # 1 / (10 (5 - 4) + 1)
        (partial(hinge, a=0.5, b=2.0), 8, 0.25),  # 1 / (0.5 * 6 + 1)
        (exponential, 10, math.exp(-1.0)),
        (partial(exponential, beta=math.log(2.0)), 3, 0.125),
        (harmonic, 3, 0.25),  # 1 / (1 + 3)
        (partial(harmonic, beta=0.5), 8, 0.2),  # 1 / (1 + 0.5 * 8)
        (threshold, 10, 1.0),  # at the limit: still fresh
        (threshold, 11, 0.0),
        (partial(delay_adaptive, concurrency=20), 20, 1.0),  # at the concurrency: still fresh
        (partial(delay_adaptive, concurrency=20), 50, 0.4),  # 20 / 50
        (product(polynomial, partial(exponential, beta=math.log(2.0))), 3, 0.0625),
    ],
)
def test_weight_has_the_value_of_the_formula(weight, tau, expected):
    assert weight(tau) == pytest.approx(expected, rel=1e-12)


@for_every_weight
def test_fresh_update_weighs_exactly_one(weight):
    assert weight(0) == 1.0


@for_every_weight
@given(tau=st.integers(min_value=0, max_value=10**9))
def test_weight_lies_between_zero_and_one(weight, tau):
    assert 0.0 <= weight(tau) <= 1.0


@for_every_weight
@given(tau=st.integers(min_value=0, max_value=10**6), later=st.integers(1, 10**6))
def test_later_update_never_weighs_more(weight, tau, later):
    assert weight(tau + later) <= weight(tau)


@pytest.mark.parametrize("weight", [w for n, w in EVERY_WEIGHT.items() if n != "constant"])
def test_update_past_every_threshold_weighs_less_than_a_fresh_one(weight):
    assert weight(5) < 1.0


@pytest.mark.parametrize("a", [0.01, 0.5, 1.0, 10.0])
def test_hinge_does_not_jump_up_just_past_its_threshold(a):
    assert hinge(5, a=a, b=4.0) == pytest.approx(1 / (a + 1), rel=1e-12)


@pytest.mark.parametrize(
    "weight",
    [
        partial(polynomial, a=0.0),
        partial(hinge, a=0.0),
        partial(exponential, beta=0.0),
        partial(harmonic, beta=0.0),
        partial(threshold, limit=math.inf),
        partial(delay_adaptive, concurrency=math.inf),
        product(),
    ],
)
def test_neutral_parameter_ignores_staleness(weight):
    assert [weight(tau) for tau in (0, 1, 7, 1000)] == [1.0, 1.0, 1.0, 1.0]


def test_product_multiplies_each_factor_once():
    squared = product(polynomial, polynomial)

    assert squared(3) == pytest.approx(polynomial(3) ** 2)
