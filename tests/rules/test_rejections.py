"""What a rule refuses: the reason is the rule's own, through whatever is around it."""

import pytest

from fedagent import AsyncStrategy
from fedagent.mixing import Mixing, ring
from fedagent.nodes.geography import Blocks
from fedagent.rules import (
    ACE,
    ASGD,
    Hierarchical,
    Malenia,
    Periodic,
    Rennala,
    Ringmaster,
    too_stale,
)
from fedagent.simulation import Equal, Lognormal
from fedagent.stopping import MaxSeconds
from fedagent.update import Outcome, Rejection, Update
from tests.toy import Log, run


class NotOnMondays(ASGD):
    """Refuses two updates of three, and says what for."""

    def __init__(self, blames_node=True):
        super().__init__(0.1)
        self.blames_node, self.asked = blames_node, 0

    def rejection(self, update):
        self.asked += 1
        if self.asked % 3 == 0:
            return None
        return Rejection(Outcome.REJECTED, "monday", "come back later", self.blames_node)


AROUND = {
    "nothing": NotOnMondays,
    "periodic": lambda: Periodic(NotOnMondays(), 2.0),
    "edge": lambda: Hierarchical(Blocks(2, 6), NotOnMondays, ASGD(), send_every=2),
    "edge-under-a-clock": lambda: Hierarchical(
        Blocks(2, 6), lambda: Periodic(NotOnMondays(), 2.0), ASGD(), send_every=2
    ),
}


@pytest.mark.parametrize("build", AROUND.values(), ids=AROUND.keys())
def test_the_reason_counted_is_the_rule_s(build):
    log = Log()
    strategy = AsyncStrategy(
        build(), fraction_evaluate=0.0, callbacks=[log], stopping=[MaxSeconds(40.0)]
    )
    run(strategy, Equal(num_nodes=6), rounds=10_000)
    reasons = {reason for outcome, reason in log.statistics.outcomes if outcome == "rejected"}
    assert reasons == {"monday"}
    assert {s.detail for s in log.settlements if s.reason == "monday"} == {"come back later"}


def test_a_node_rests_for_a_refusal_that_is_its_own_fault_only():
    def dispatches(blames_node: bool) -> int:
        log = Log()
        strategy = AsyncStrategy(
            NotOnMondays(blames_node),
            fraction_evaluate=0.0,
            callbacks=[log],
            stopping=[MaxSeconds(30.0)],
        )
        run(strategy, Equal(num_nodes=4), rounds=10_000)
        return log.statistics.num_dispatches

    assert dispatches(blames_node=False) >= 4 * 30
    assert dispatches(blames_node=True) < 4 * 30 / 2


@pytest.mark.parametrize(
    ("rule", "welcome"),
    [
        (Ringmaster(3), 2),
        (ACE(4, max_age=5), 5),
        (Rennala(), 0),
        (Malenia(4), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_too_late_is_nobody_s_fault(rule, welcome):
    def late(tau: int) -> Update:
        return Update(1, delta=None, base=None, staleness=tau)

    assert rule.rejection(late(welcome)) is None
    rejection = rule.rejection(late(welcome + 1))
    assert rejection == too_stale(late(welcome + 1))
    assert (rejection.reason, rejection.blames_node) == ("too-stale", False)
    assert str(welcome + 1) in rejection.detail


def test_a_node_without_a_place_is_told_what_to_do():
    log = Log()
    strategy = AsyncStrategy(
        Periodic(Mixing(ring(3)), 1.0),
        fraction_evaluate=0.0,
        callbacks=[log],
        stopping=[MaxSeconds(20.0)],
    )
    run(strategy, Lognormal(num_nodes=5), rounds=10_000)
    refused = [s for s in log.settlements if s.reason == "no-place-in-mixing"]
    assert refused
    assert all("build it for as many nodes as there are" in s.detail for s in refused)
