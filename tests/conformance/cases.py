"""The registry: every rule beside its oracle. Add a rule here and all of tests/conformance runs it.

Functions of `fedagent.rules.staleness` are looked up when a rule is built, not when this module
is imported, so that test_mistakes.py can plant a wrong formula.
"""

import pytest
from hypothesis import strategies as st

from fedagent.rules import FedAsync, FedBuff
from tests.conformance import oracle
from tests.conformance.case import WEIGHTS, Case
from tests.conformance.cases_memory import CASES as MEMORY_CASES
from tests.conformance.cases_sgd import CASES_SGD


def fedasync(weight: str, alpha: float = 0.6) -> Case:
    s, formula = WEIGHTS[weight]
    return Case(
        "fedasync",
        weight,
        lambda: FedAsync(alpha, s()),
        lambda: oracle.fedasync(alpha, formula),
        buffer_size=1,
    )


def fedbuff(weight: str, normalise: str, weighted: bool, size: int | None = 3) -> Case:
    s, formula = WEIGHTS[weight]
    examples = "examples" if weighted else "equal"
    eta = 0.7
    return Case(
        "fedbuff",
        f"{weight}-{normalise}-{examples}",
        lambda: FedBuff(size, eta, s(), normalise, weighted),
        lambda: oracle.fedbuff(size, eta, formula, normalise, weighted),
        buffer_size=size,
    )


CASES = [
    *(fedasync(weight) for weight in WEIGHTS),
    *(
        fedbuff(weight, normalise, weighted)
        for weight in WEIGHTS
        for normalise in ("buffer", "weights")
        for weighted in (True, False)
    ),
    *MEMORY_CASES,
    *CASES_SGD,
]

for_every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

FAMILIES = {
    name: st.sampled_from([case for case in CASES if case.family == name])
    for name in dict.fromkeys(case.family for case in CASES)
}

STABLE = {
    name: st.sampled_from(stable)
    for name in FAMILIES
    if (stable := [case for case in CASES if case.family == name and case.is_stable])
}

for_every_stable_rule = pytest.mark.parametrize(
    "configurations", STABLE.values(), ids=STABLE.keys()
)
"""The same, where a rule has cases that rounding errors do not throw off, and of these."""

for_every_rule = pytest.mark.parametrize("configurations", FAMILIES.values(), ids=FAMILIES.keys())
"""Give a property test a hypothesis strategy of all cases of one rule: draw one of them."""
