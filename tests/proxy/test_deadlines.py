"""A deadline per dispatch: what comes later is not applied, and its node works again."""

import pytest

from fedagent import FedBuff
from fedagent._flower import empty_run
from fedagent.errors import ConfigurationError
from fedagent.nodes.deadlines import Deadlines
from fedagent.proxy.options import AsyncOptions
from fedagent.scheduling import RoundRobin, Uniform
from fedagent.simulation import Equal, Scripted, SimulationGrid
from fedagent.simulation.workers.inline import Inline
from fedagent.stopping import MaxSeconds
from tests.simulation.apps import app_of, arrays, echo
from tests.toy import Log, run

FLEET = Scripted(num_nodes=3, times=(1.0, 1.0, 10.0))


def settled(**options) -> Log:
    log = Log()
    strategy = FedBuff(
        buffer_size=2,
        scheduler=Uniform(2),
        stopping=[MaxSeconds(59.5)],
        callbacks=[log],
        fraction_evaluate=0.0,
        **options,
    )
    run(strategy, FLEET, rounds=1000)
    return log


def test_who_misses_the_deadline_expires_then_and_is_asked_again_when_heard_of():
    log = settled(deadline_s=5.0)
    overdue = [s for s in log.settlements if s.reason == "deadline"]
    assert [s.dispatch.sent_at_s for s in overdue] == [0.0, 20.0, 40.0]
    assert all(s.dispatch.deadline_s == s.dispatch.sent_at_s + 5.0 for s in overdue)
    assert {s.detail for s in overdue} == {"no reply within 5 s"}
    assert log.statistics.unsolicited["late"] == 2


def test_an_overdue_node_is_still_at_work():
    log = settled(deadline_s=5.0, concurrency=1)
    assert log.statistics.concurrency == 1
    assert log.statistics.at_work_max == 2


def test_the_fast_nodes_are_not_disturbed():
    log = settled(deadline_s=5.0)
    fast = [s for s in log.settlements if s.reason != "deadline" and s.outcome == "applied"]
    assert len(fast) == 2 * 29
    assert log.statistics.staleness_max == 0


@pytest.mark.parametrize("deadline_s", [None, 20.5])
def test_a_reply_in_time_is_applied_however_slow(deadline_s):
    log = settled(deadline_s=deadline_s)
    assert not any(s.reason == "deadline" for s in log.settlements)
    assert len({s.dispatch.node_id for s in log.settlements if s.outcome == "applied"}) == 3


def test_a_deadline_longer_than_the_timeout_is_possible():
    log = Log()
    strategy = FedBuff(
        buffer_size=1,
        scheduler=Uniform(2),
        callbacks=[log],
        fraction_evaluate=0.0,
        deadline_s=100.0,
    )
    run(strategy, Scripted(num_nodes=2, times=(10.0, 10.0)), rounds=4, timeout=5.0)
    assert log.reason == "4 rounds"


@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
def test_a_deadline_that_nobody_can_meet_is_refused(deadline_s):
    with pytest.raises(ConfigurationError, match=f"deadline_s={deadline_s}"):
        FedBuff(deadline_s=deadline_s)


# --- learned --------------------------------------------------------------------------------------


def test_a_factor_that_makes_half_of_all_late_is_refused():
    with pytest.raises(ConfigurationError, match="deadline_factor"):
        AsyncOptions(deadline_factor=0.5)


def settlements(times_s, **options):
    log = Log()
    strategy = FedBuff(
        buffer_size=2,
        scheduler=RoundRobin(),  # who is slow comes last
        stopping=[MaxSeconds(50_000.0)],
        callbacks=[log],
        fraction_evaluate=0.0,
        deadline_s=40_000.0,
        **options,
    )
    run(strategy, Scripted(num_nodes=len(times_s), times=times_s), rounds=10_000)
    return log


def test_a_node_that_is_late_once_is_given_the_time_it_takes():
    times_s = (*[100.0] * 24, 1_000.0)
    log = settlements(times_s, deadline_factor=3.0, concurrency=1)
    overdue = [s for s in log.settlements if s.reason == "deadline"]
    assert [s.detail for s in overdue] == ["no reply within 300 s"]
    slow = overdue[0].dispatch.node_id
    applied = [s for s in log.settlements if s.dispatch.node_id == slow and s.outcome == "applied"]
    assert applied
    assert log.statistics.unsolicited["late"] == 1


def test_in_a_simulation_deadlines_are_what_was_asked_for():
    log = settlements((*[100.0] * 24, 1_000.0), concurrency=1)
    assert not [s for s in log.settlements if s.reason == "deadline"]


def test_a_proxy_forgets_the_deadlines_of_nodes_that_left(monkeypatch):
    """Nodes that come under a new id each time: as many as ever are known, not all that were."""
    known = []
    observe = Deadlines.observe

    def noted(self, node_id, duration_s):
        observe(self, node_id, duration_s)
        known.append(self.num_nodes)

    monkeypatch.setattr(Deadlines, "observe", noted)

    class Passing(SimulationGrid):
        """Ten nodes are there at a time: every 50 seconds the next ten."""

        def get_node_ids(self):
            first = int(self.clock.now() // 50.0) * 10
            return list(super().get_node_ids())[first : first + 10]

    strategy = FedBuff(
        buffer_size=2,
        stopping=[MaxSeconds(950.0)],
        fraction_evaluate=0.0,
        deadline_factor=3.0,
        deadline_s=1000.0,
    )
    grid = Passing(Equal(num_nodes=200), Inline(app_of(echo)), empty_run(1), {})
    strategy.start(grid, arrays(0.0), num_rounds=10_000)
    assert len(known) > 1_000
    assert max(known) <= 2 * 20 + 10
