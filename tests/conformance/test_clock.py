"""``publish_every_s``: every rule under a clock, event by event beside its own oracle."""

import pkgutil
from importlib import import_module
from inspect import isabstract
from itertools import pairwise

import numpy as np
import pytest

import fedagent
from fedagent import AsyncStrategy
from fedagent.errors import ConfigurationError
from fedagent.privacy import Private
from fedagent.privacy.secure import SecureSums
from fedagent.rules import FedAT, Hierarchical, OnePerNode, Periodic, Rule, RuleWrapper
from tests.conformance.cases_clock import CLOCK_CASES, REFUSES_A_CLOCK
from tests.conformance.clock import PERIOD_S, arrivals, oracle_moments, real_moments

HISTORY = arrivals()

HAVE_ORACLES_ELSEWHERE = {
    FedAT: "tests/rules/test_fedat.py",
    Hierarchical: "tests/rules/test_hierarchical.py, tests/rules/test_periodic.py",
    OnePerNode: "tests/rules/test_one_per_node.py",
    Periodic: "here: every case is under one",
    Private: "tests/privacy/test_rule.py",
    SecureSums: "tests/privacy/secure/test_runs.py",
    RuleWrapper: "tests/rules/test_wrapper.py",
}


def all_rules() -> list[type[Rule]]:
    """Every rule of the package that can be built, whoever adds one."""
    for module in pkgutil.walk_packages(fedagent.__path__, "fedagent."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found, frontier = set(), [Rule]
    while frontier:
        frontier += (subclasses := frontier.pop().__subclasses__())
        found.update(subclasses)
    package = [rule for rule in found if rule.__module__.startswith("fedagent.")]
    return sorted((r for r in package if not isabstract(r)), key=lambda rule: rule.__name__)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.__name__)
def test_every_rule_has_an_oracle_under_a_clock(rule):
    have_oracles = {type(case.rule()) for case in (*CLOCK_CASES, *REFUSES_A_CLOCK)}
    assert rule in have_oracles or rule in HAVE_ORACLES_ELSEWHERE, (
        f"{rule.__name__} has no oracle: add a case for it to tests/conformance/cases.py"
    )


@pytest.mark.parametrize("case", CLOCK_CASES, ids=lambda case: case.name)
def test_rule_under_a_clock_follows_its_oracle_event_by_event(case):
    actual, expected = (
        real_moments(case.rule(), HISTORY),
        oracle_moments(case.oracle(), HISTORY),
    )

    assert len(actual) == len(expected)
    for (at_s, *ours), (then_s, *theirs) in zip(actual, expected, strict=True):
        assert at_s == pytest.approx(then_s), "a period ends at another time"
        assert ours[:2] == theirs[:2], f"(version, pending) at {at_s} s"
        np.testing.assert_allclose(ours[2], theirs[2], rtol=1e-6, atol=1e-6, err_msg=f"{at_s} s")


@pytest.mark.parametrize("case", CLOCK_CASES, ids=lambda case: case.name)
def test_a_clock_publishes_only_what_has_changed(case):
    moments = real_moments(case.rule(), HISTORY)
    versions = {version: model.tobytes() for _, version, _, model in moments}

    assert len(versions) > 5, "the rule publishes under a clock"
    assert len(set(versions.values())) == len(versions), "a version equals another one"
    changes = [
        (at_s, version)
        for (_, before, _, _), (at_s, version, _, _) in pairwise(moments)
        if version != before
    ]
    assert all(at_s / PERIOD_S == round(at_s / PERIOD_S) for at_s, _ in changes)


@pytest.mark.parametrize("case", REFUSES_A_CLOCK, ids=lambda case: case.name)
def test_a_rule_that_no_clock_can_publish_says_so_when_it_is_built(case):
    name = type(case.rule()).__name__
    with pytest.raises(ConfigurationError, match=rf"{name} must publish .*publish_every_s=2"):
        AsyncStrategy(case.rule(), publish_every_s=2.0)


@pytest.mark.parametrize(
    "case", [c for c in CLOCK_CASES if c.rule().needs_clock], ids=lambda case: case.name
)
def test_a_buffer_that_is_never_full_needs_a_clock(case):
    with pytest.raises(ConfigurationError, match="set publish_every_s too"):
        AsyncStrategy(case.rule())
