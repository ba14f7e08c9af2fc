"""Event by event: staleness, weight, parameters, counters and versions are those of the oracle."""

import numpy as np
import pytest

from fedagent.rules import FedAsync, FedBuff
from fedagent.rules.staleness import polynomial
from tests.conformance import cases, oracle
from tests.conformance.cases import for_every_case
from tests.conformance.replay import OracleRun, RealRun, Work, replay
from tests.conformance.script import ARRIVALS, check, right


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@for_every_case
def test_rule_follows_its_oracle_event_by_event(case, dtype):
    check(case, dtype)


@pytest.mark.parametrize(
    "case",
    [cases.fedasync("hinge"), cases.fedbuff("hinge", "buffer", True)],
    ids=lambda case: case.name,
)
def test_script_reaches_both_sides_of_every_threshold(case):
    events = right(case)

    taus = {event.tau for event in events}
    assert {0, 1, 4, 5} <= taus, "fresh, late, at the hinge's threshold, just past it"
    assert events[-1].pending == len(ARRIVALS) % case.buffer_size
    counters = [work.counter for _, work in ARRIVALS]
    assert counters != sorted(counters), "no counter would go back"


# One parameter, x0 = 0, alpha = 1/2, s(tau) = (1 + tau)^-1/2.
#
#   base  delta      y  tau   s   alpha_t   x
#    0     +4        4   0    1     1/2     (0 + 4) / 2             = 2
#    1     +4        6   0    1     1/2     (2 + 6) / 2             = 4
#    2     -2        2   0    1     1/2     (4 + 2) / 2             = 3
#    0     +7        7   3   1/2    1/4     3/4 * 3 + 1/4 * 7       = 4
#    4     -8       -4   0    1     1/2     (4 - 4) / 2             = 0     alpha did not decay
FEDASYNC_BY_HAND = [
    (0, 4.0, 0, 1.0, 2.0),
    (1, 4.0, 0, 1.0, 4.0),
    (2, -2.0, 0, 1.0, 3.0),
    (0, 7.0, 3, 0.5, 4.0),
    (4, -8.0, 0, 1.0, 0.0),
]


@pytest.mark.parametrize(
    "run",
    [
        lambda: RealRun(FedAsync(0.5, polynomial), [0.0]),
        lambda: OracleRun(oracle.fedasync(0.5, oracle.polynomial(0.5)), [0.0]),
    ],
    ids=["rule", "oracle"],
)
def test_fedasync_trace_worked_by_hand(run):
    arrivals = [(base, Work(node=0, delta=(delta,))) for base, delta, *_ in FEDASYNC_BY_HAND]

    events = replay(run(), arrivals)

    assert all(event.published for event in events)
    assert [event.tau for event in events] == [tau for *_, tau, _, _ in FEDASYNC_BY_HAND]
    assert [event.weight for event in events] == [s for *_, s, _ in FEDASYNC_BY_HAND]
    assert [float(event.parameters[0]) for event in events] == [x for *_, x in FEDASYNC_BY_HAND]


# One parameter, x0 = 0, K = 2, eta = 1, s(tau) = (1 + tau)^-1/2; n = examples.
#
#  base delta n tau  s    weighted                            equal weights
#   0    +4   1  0   1    pending                             pending
#   0    +8   3  0   1    (1*4 + 3*8) / 4 = 7      x = 7      (4 + 8) / 2 = 6         x = 6
#   1    -2   1  0   1    pending                             pending
#   1    +2   1  0   1    (-2 + 2) / 2    = 0      x = 7      0                       x = 6
#   2    +1   2  0   1    pending                             pending
#   2    +4   1  0   1    (2*1 + 4) / 3   = 2      x = 9      (1 + 4) / 2 = 2.5       x = 8.5
#   3    +4   1  0   1    pending                             pending
#   0    +8   4  3  1/2   sum n s delta = 4 + 4*8/2 = 20      sum s delta = 4 + 8/2 = 8
#       "buffer":         N = 1 + 4   -> +4        x = 13     N = 2    -> +4          x = 12.5
#       "weights":        N = 1 + 4/2 -> +20/3     x = 47/3   N = 1.5  -> +16/3       x = 83/6
FEDBUFF_BY_HAND = [
    (0, Work(0, (4.0,), 1)),
    (0, Work(1, (8.0,), 3)),
    (1, Work(0, (-2.0,), 1)),
    (1, Work(1, (2.0,), 1)),
    (2, Work(0, (1.0,), 2)),
    (2, Work(1, (4.0,), 1)),
    (3, Work(0, (4.0,), 1)),
    (0, Work(2, (8.0,), 4)),
]


@pytest.mark.parametrize(
    ("normalise", "weighted", "versions"),
    [
        ("buffer", True, [7, 7, 9, 13]),
        ("weights", True, [7, 7, 9, 47 / 3]),
        ("buffer", False, [6, 6, 8.5, 12.5]),
        ("weights", False, [6, 6, 8.5, 83 / 6]),
    ],
)
@pytest.mark.parametrize("which", ["rule", "oracle"])
def test_fedbuff_trace_worked_by_hand(which, normalise, weighted, versions):
    if which == "rule":
        run = RealRun(FedBuff(2, 1.0, polynomial, normalise, weighted), [0.0])
    else:
        run = OracleRun(oracle.fedbuff(2, 1.0, oracle.polynomial(0.5), normalise, weighted), [0.0])

    events = replay(run, FEDBUFF_BY_HAND)

    assert [event.published for event in events] == [False, True] * 4
    assert [event.tau for event in events] == [0, 0, 0, 0, 0, 0, 0, 3]
    assert [event.weight for event in events] == [1, 1, 1, 1, 1, 1, 1, 0.5]
    np.testing.assert_allclose(
        [float(event.parameters[0]) for event in events if event.published], versions, rtol=1e-14
    )
    assert [float(event.parameters[0]) for event in events if not event.published] == pytest.approx(
        [0, *versions[:-1]], rel=1e-14
    ), "a buffered update moved the model"
