"""One scripted history that every rule is taken through, next to its oracle."""

from collections.abc import Iterable

import numpy as np

from tests.conformance.case import Case
from tests.conformance.replay import (
    Event,
    OracleRun,
    RealRun,
    Run,
    Work,
    assert_same_trace,
    fleet,
    replaying,
)

INITIAL = (0.5, -1.0, 2.0)

LOCAL_STEPS = (4, 1, 2, None, 8)

# (base version, node, delta, examples, BatchNorm counter). Bases are such that rules which publish
# on every arrival and rules with a buffer of three can both be taken through; node 4 is the
# straggler: what its first update leaves behind is seen long before its second. One late update
# changes nothing. Counters come out of order. A node's local steps are always the same.
ARRIVALS = [
    (base, Work(node, delta, examples, counter, LOCAL_STEPS[node]))
    for base, node, delta, examples, counter in [
        (0, 0, (1.0, 0.0, 0.0), 10, 2),
        (0, 1, (0.0, 2.0, 0.0), 30, 5),
        (0, 2, (0.5, -0.5, 4.0), 5, 3),
        (0, 3, (-1.0, 1.0, 1.0), 20, 3),
        (1, 0, (0.25, 0.0, -2.0), 10, 7),
        (0, 1, (3.0, 3.0, 3.0), 30, 5),
        (2, 2, (-0.5, 0.5, 0.0), 5, 8),
        (2, 0, (1.0, -1.0, 0.5), 10, 6),
        (1, 3, (2.0, 0.0, 0.0), 20, 12),
        (3, 1, (-3.0, 0.0, 1.0), 30, 9),
        (2, 2, (0.0, 0.0, -1.0), 5, 11),
        (0, 4, (-5.0, 2.0, 6.0), 500, 14),
        (3, 0, (0.1, 0.2, 0.3), 10, 15),
        (0, 1, (0.0, 0.0, 0.0), 30, 17),
        (4, 3, (-2.0, -2.0, -2.0), 20, 13),
        (4, 1, (0.0, 1.5, 0.0), 30, 10),
        (0, 2, (1.0, 1.0, -1.0), 5, 4),
        (5, 0, (-0.7, 0.6, 0.9), 10, 20),
        (0, 4, (8.0, -6.0, 7.0), 500, 1),
        (1, 3, (2.5, -2.5, 0.0), 20, 18),
        (6, 1, (0.0, 0.0, 2.0), 30, 19),
        (0, 2, (-4.0, 4.0, 1.0), 5, 2),
    ]
]


def play(case: Case, run: Run) -> Iterable[Event]:
    """Take `run` through the script."""
    if case.scripted_bases:
        return replaying(run, ARRIVALS)
    return fleet(run, [work for _, work in ARRIVALS])


def right(case: Case) -> list[Event]:
    """What the oracle makes of the script."""
    return list(play(case, OracleRun(case.oracle(), INITIAL)))


def check(case: Case, dtype: str = "float64") -> None:
    """Fail unless `case` does what its oracle does, to 16 roundings of `dtype`'s largest number.

    The script's numbers stay below 32, so that is 1e-13 in float64 and 6e-5 in float32.
    """
    actual = play(case, RealRun(case.rule(), INITIAL, dtype))
    assert_same_trace(actual, right(case), tolerance=16 * 32 * np.finfo(dtype).eps)
