"""Mutation tests of the loop: mistakes 9 to 11 of public code, planted in the proxy's parts.

Each check is green as the code stands and must go red with the mistake in it. The mistakes about
formulas are in test_mistakes.py.
"""

from collections.abc import Callable

import numpy as np
import pytest

from fedagent import FedAsync, FedBuff
from fedagent.nodes.membership import Membership
from fedagent.proxy.jobs import Jobs
from fedagent.proxy.ledger import Ledger
from fedagent.proxy.loop import Proxy
from fedagent.simulation import Scripted
from fedagent.stopping import MaxSeconds
from tests.conformance import cases
from tests.conformance.case import Case
from tests.conformance.replay import RealRun
from tests.conformance.script import ARRIVALS, INITIAL
from tests.toy import Log, run


def check_failures_cost_no_slots() -> None:
    """Half of all jobs fail; as many nodes are at work in the end as in the beginning."""
    fleet = Scripted(
        num_nodes=6, times=(1.0,) * 6, profiles={i: {"failure_rate": 0.5} for i in range(6)}
    )
    log = Log()
    strategy = FedAsync(
        concurrency=3, callbacks=[log], stopping=[MaxSeconds(80.0)], fraction_evaluate=0.0
    )
    run(strategy, fleet, rounds=100_000, timeout=1000)
    late = [at_s for _, at_s in log.starts if at_s >= 40.0]
    assert len(late) > 20, f"only {len(late)} jobs in the second half"


def check_evaluation_holds_nothing_up() -> None:
    """With a federated evaluation of every version, every slot is still always at work."""
    log = Log()
    strategy = FedBuff(
        buffer_size=2,
        concurrency=3,
        evaluate_clients_every=1,
        callbacks=[log],
        fraction_evaluate=0.5,
    )
    fleet = Scripted(num_nodes=9, times=(1.0, 1.0, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 9.0))
    run(strategy, fleet, rounds=10)
    assert log.statistics.evaluation_outcomes.total() > 10, "nothing was evaluated"
    assert log.statistics.utilisation == pytest.approx(1.0), "slots stood empty"


def check_a_resumed_run_still_knows_who_is_at_work() -> None:
    """Save in the middle, load into a fresh run: what was in flight arrives and counts the same."""
    case: Case = cases.fedbuff("polynomial", "buffer", weighted=True)
    straight = RealRun(case.rule(), INITIAL)
    jobs = [straight.dispatch(work.node) for _, work in ARRIVALS[:3]]
    resumed = RealRun(case.rule(), INITIAL).resume(straight.state())
    for job, (_, work) in zip(jobs, ARRIVALS, strict=False):
        assert len(resumed.ledger) == len(straight.ledger), "jobs in flight were forgotten"
        expected, event = straight.arrive(job, work), resumed.arrive(job, work)
        assert np.array_equal(event.parameters, expected.parameters)


def leaks_the_slot_of_a_failed_job(patch: pytest.MonkeyPatch) -> None:
    right = Jobs.end

    def end(self, dispatch, now_s, succeeded):
        if succeeded:
            right(self, dispatch, now_s, succeeded)

    patch.setattr(Jobs, "end", end)


def never_gives_a_failed_node_work_again(patch: pytest.MonkeyPatch) -> None:
    right = Membership.release

    def release(self, node_id, now_s, succeeded=None, is_late=False):
        if succeeded is not False:
            right(self, node_id, now_s, succeeded, is_late)

    patch.setattr(Membership, "release", release)


def waits_until_the_clients_have_evaluated(patch: pytest.MonkeyPatch) -> None:
    right = Proxy._hand_out_work

    def hand_out(self):
        self._evaluations.ask_clients()
        while self._evaluations.are_awaited:
            self._take_replies()
        right(self)

    patch.setattr(Proxy, "_hand_out_work", hand_out)


def resumes_without_what_is_in_flight(patch: pytest.MonkeyPatch) -> None:
    right = Ledger.state_dict
    patch.setattr(Ledger, "state_dict", lambda self: right(self) | {"in_flight": []})


MISTAKES: list[tuple[str, Callable[[], None], Callable[[pytest.MonkeyPatch], None]]] = [
    ("9", check_failures_cost_no_slots, leaks_the_slot_of_a_failed_job),
    ("9", check_failures_cost_no_slots, never_gives_a_failed_node_work_again),
    ("10", check_evaluation_holds_nothing_up, waits_until_the_clients_have_evaluated),
    ("11", check_a_resumed_run_still_knows_who_is_at_work, resumes_without_what_is_in_flight),
]


@pytest.mark.parametrize(
    ("check", "plant"),
    [m[1:] for m in MISTAKES],
    ids=[f"{number}-{plant.__name__}" for number, _, plant in MISTAKES],
)
def test_planted_mistake_turns_the_check_red(check, plant, monkeypatch):
    check()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
