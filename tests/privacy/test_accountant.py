"""What is spent, against dp-accounting's accountants, a closed form and numerical integration."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld, rdp
from scipy import optimize, stats

from fedagent import errors
from fedagent.errors import ConfigurationError, DataUnavailableError
from fedagent.privacy import Accountant, Noise, epsilon_of, noise_multiplier_for, sigma_of

DELTA = 1e-5


def closed_form(mu: float, delta: float) -> float:
    """Balle and Wang, Theorem 8, solved for epsilon."""

    def exceeds(epsilon: float) -> float:
        first = stats.norm.cdf(mu / 2 - epsilon / mu)
        second = math.exp(epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu))
        return first - second - delta

    return optimize.brentq(exceeds, 0.0, 1000.0)


def hockey_stick(mu: float, epsilon: float) -> float:
    """delta by integrating max(0, p - e^eps q) for N(mu, 1) against N(0, 1): an oracle."""
    x = np.linspace(-12.0, 12.0 + mu, 400_001)
    loss = stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x)
    return float(np.trapezoid(np.maximum(loss, 0.0), x))


@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 4.0])
def test_epsilon_is_that_of_the_closed_form_and_of_the_integral(mu):
    epsilon = epsilon_of(mu, DELTA)
    assert epsilon == pytest.approx(closed_form(mu, DELTA), abs=1e-4)
    assert hockey_stick(mu, epsilon) == pytest.approx(DELTA, rel=0.01)


@pytest.mark.parametrize("weights", [[1.0] * 12, [1.0, 0.5, 0.25, 1.0, 0.7]])
def test_releases_add_up_as_dp_accounting_s_own_accountants_say(weights):
    z, ours = 4.0, Accountant(DELTA)
    exact, renyi = pld.PLDAccountant(), rdp.RdpAccountant()
    for weight in weights:
        ours.charge(7, (weight / z) ** 2)
        event = dp_accounting.GaussianDpEvent(z / weight)
        exact.compose(event)
        renyi.compose(event)
    assert ours.epsilon() == pytest.approx(exact.get_epsilon(DELTA), rel=1e-3)
    assert ours.epsilon() <= renyi.get_epsilon(DELTA)


@pytest.mark.parametrize("releases", [1, 2, 5, 8, 31, 32])
def test_a_tree_costs_what_dp_accounting_says_of_one(releases):
    z, neighbours = 3.0, dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    theirs = rdp.RdpAccountant(neighboring_relation=neighbours)
    theirs.compose(dp_accounting.SingleEpochTreeAggregationDpEvent(z, releases))
    draws = Noise(0, releases).draws_per_contribution
    ours = rdp.RdpAccountant(neighboring_relation=neighbours)
    ours.compose(dp_accounting.GaussianDpEvent(z), draws)
    assert ours.get_epsilon(DELTA) == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-9)


def test_the_worst_node_is_what_is_said():
    accountant = Accountant(DELTA)
    assert accountant.epsilon() == 0.0
    accountant.charge(1, 0.01)
    accountant.charge(2, 0.25)
    assert accountant.epsilon() == accountant.epsilon(2) == epsilon_of(0.5, DELTA)
    assert accountant.epsilon(1) == epsilon_of(0.1, DELTA)
    assert accountant.epsilon(3) == 0.0


def test_a_budget_affords_as_many_releases_as_it_was_made_for():
    z, accountant = noise_multiplier_for(2.0, DELTA, 25), Accountant(DELTA, epsilon_budget=2.0)
    for _ in range(25):
        assert accountant.can_afford(1, z**-2)
        accountant.charge(1, z**-2)
    assert not accountant.can_afford(1, z**-2)
    assert accountant.epsilon() == pytest.approx(2.0, abs=1e-6)
    assert z == pytest.approx(5 * sigma_of(2.0, DELTA))


def test_a_state_is_plain_and_comes_back():
    accountant, other = Accountant(DELTA), Accountant(DELTA)
    accountant.charge(2**63 + 1, 0.1)
    other.load_state_dict(accountant.state_dict())
    assert other.nodes == {2**63 + 1: 0.1}


@pytest.mark.parametrize(("delta", "budget"), [(0.0, None), (1.0, None), (DELTA, 0.0)])
def test_numbers_that_mean_nothing_are_refused(delta, budget):
    with pytest.raises(ConfigurationError, match="must"):
        Accountant(delta, budget)


def test_a_missing_package_is_named_with_its_pip_line(monkeypatch):
    def missing(module):
        raise ImportError(module)

    monkeypatch.setattr(errors, "import_module", missing)
    with pytest.raises(DataUnavailableError, match=r"fedagent\[privacy\]"):
        Accountant(DELTA, 1.0)
