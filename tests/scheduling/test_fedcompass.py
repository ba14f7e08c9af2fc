"""FedCompass: groups by hand, and on a fleet."""

import math

import pytest

from fedagent.errors import ConfigurationError
from fedagent.scheduling import FedCompass, Uniform
from fedagent.simulation import Scripted, TwoClass
from tests.scheduling.fleet import SteadyFleet, done, idle_of, trained


def known(seconds: dict[int, float], **arguments) -> FedCompass:
    scheduler = FedCompass(**arguments)
    for node, seconds_per_step in seconds.items():
        scheduler.observe(done(node, 10, 10 * seconds_per_step))
    return scheduler


def test_an_unknown_node_does_the_least_and_belongs_to_no_group():
    scheduler = FedCompass()
    assert scheduler.assign(idle_of(1), 0.0).local_steps == 20
    assert scheduler.groups == []


def test_the_first_group_is_laid_out_for_the_fastest_node():
    scheduler = known({1: 2.0})
    job = scheduler.assign(idle_of(1), now_s=10.0)
    group = scheduler.groups[0]
    assert (job.local_steps, job.learning_rate) == (100, None)
    assert (group.arrives_s, group.latest_s) == (10.0 + 200.0, 10.0 + 1.5 * 200.0)


@pytest.mark.parametrize(
    ("seconds", "now_s", "steps"),
    [
        (4.0, 0.0, 50),  # 200 / 4
        (3.0, 0.0, 66),  # floor(200 / 3)
        (2.0, 100.0, 50),  # 100 s are left
        (10.0, 0.0, 20),  # just Q_min
    ],
)
def test_a_node_joins_with_the_steps_that_fit_before_the_group_arrives(seconds, now_s, steps):
    scheduler = known({1: 2.0, 2: seconds})
    scheduler.assign(idle_of(1), now_s=0.0)
    assert scheduler.assign(idle_of(2), now_s).local_steps == steps
    assert len(scheduler.groups) == 1


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_of_several_groups_the_one_that_takes_the_most_steps_is_joined(first, second):
    scheduler = known({1: 1.0, 2: 9.0, 3: 4.0})
    for node in (first, second):
        scheduler.assign(idle_of(node), 0.0)
    # Node 1 arrives at 100; node 2 with floor((150 + 100) / 9) = 27 steps at 243.
    assert {g.arrives_s for g in scheduler.groups} == {100.0, 243.0}
    assert scheduler.assign(idle_of(3), 0.0).local_steps == 60  # not floor(100 / 4)


def test_a_node_too_slow_to_join_meets_the_next_round_of_the_group():
    scheduler = known({1: 1.0, 2: 6.0})
    scheduler.assign(idle_of(1), 0.0)
    job = scheduler.assign(idle_of(2), 0.0)  # 16 < Q_min steps fit before 100
    assert job.local_steps == 41  # floor((150 + 100 x 1) / 6)
    assert scheduler.groups[1].arrives_s == 41 * 6.0


def test_the_next_round_of_a_group_is_that_of_its_fastest_member_whoever_came_first():
    scheduler = known({1: 1.0, 2: 2.0, 3: 6.0})
    given = [scheduler.assign(idle_of(node), 0.0).local_steps for node in (2, 1, 3)]
    assert given == [50, 100, 41], "not floor((150 + 100 x 2) / 6)"


def test_a_much_slower_node_does_the_least():
    scheduler = known({1: 1.0, 2: 25.0})
    scheduler.assign(idle_of(1), 0.0)
    assert scheduler.assign(idle_of(2), 0.0).local_steps == 20


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 100), (2.0, 50), (6.0, 41), (25.0, 20)])
def test_who_comes_first_does_not_decide_how_much_it_gets(seconds, steps):
    """The same steps as if the fastest had come first: see the three tests above."""
    scheduler = known({1: 1.0, 2: seconds})
    assert scheduler.assign(idle_of(2), 0.0).local_steps == steps


def test_who_has_arrived_waits_for_the_rest_of_its_group():
    scheduler = known({1: 1.0, 2: 1.0, 3: 1.0})
    for node in (1, 2):
        scheduler.assign(idle_of(node), 0.0)
    scheduler.observe(done(1, 100, 99.0))
    assert scheduler.assign(idle_of(1), 99.0) is None
    assert scheduler.assign(idle_of(1, 3), 99.0).node_id == 3, "others do not wait for it"
    scheduler.observe(done(2, 100, 101.0))
    assert scheduler.assign(idle_of(1), 101.0).node_id == 1


def test_nobody_waits_past_the_latest_arrival():
    scheduler = known({1: 1.0, 2: 1.0})
    for node in (1, 2):
        scheduler.assign(idle_of(node), 0.0)
    assert scheduler.next_due_s() == math.inf, "nobody waits yet"
    scheduler.observe(done(1, 100, 100.0))
    assert scheduler.next_due_s() == 150.0
    assert scheduler.assign(idle_of(1), 149.9) is None
    assert scheduler.assign(idle_of(1), 150.0).node_id == 1
    scheduler.observe(done(2, 100, 160.0))
    assert scheduler.assign(idle_of(2), 160.0).node_id == 2, "late: on its own, at once"


def test_a_run_that_hears_its_jobs_again_forms_the_same_groups():
    undisturbed, resumed = (known({1: 1.0, 2: 1.0}, min_steps=1, max_steps=10) for _ in range(2))

    def works_again(scheduler, begin):
        begin(1, 0.0)
        begin(2, 0.0)
        scheduler.observe(done(1, 10, 10.0))
        begin(1, 16.0)  # L_g was 15
        scheduler.observe(done(2, 10, 17.0))
        scheduler.lost(1)

    works_again(undisturbed, lambda node, now_s: undisturbed.assign(idle_of(node), now_s))
    works_again(resumed, resumed.plan)
    assert resumed.groups == undisturbed.groups == []
    assert resumed.assign(idle_of(1, 2), 17.0) is not None


def test_a_member_whose_job_is_lost_is_not_waited_for():
    scheduler = known({1: 1.0, 2: 1.0})
    for node in (1, 2):
        scheduler.assign(idle_of(node), 0.0)
    scheduler.observe(done(1, 100, 100.0))
    scheduler.lost(2)
    assert scheduler.assign(idle_of(1), 100.0).node_id == 1


def test_a_member_whose_job_is_lost_does_not_wait_itself():
    scheduler = known({1: 1.0, 2: 1.0})
    for node in (1, 2):
        scheduler.assign(idle_of(node), 0.0)
    scheduler.lost(2)
    assert scheduler.next_due_s() == math.inf, "nobody waits"
    assert scheduler.assign(idle_of(2), 10.0).node_id == 2


def test_steady_groups_arrive_within_one_step_of_their_slowest_member():
    seconds = {1: 1.0, 2: 1.3, 3: 2.7, 4: 4.9}
    scheduler, fleet = FedCompass(), SteadyFleet(seconds)
    fleet.hand_out(scheduler)
    for _ in range(200):
        for job in fleet.turn(scheduler):
            expected = [g for g in scheduler.groups if job.node_id in g.expected]
            early_s = [g.arrives_s - fleet.now_s for g in expected]
            late_by = [s - job.local_steps * seconds[job.node_id] for s in early_s]
            assert all(-1e-6 <= s < seconds[job.node_id] for s in late_by)
    assert sorted(expected[0].expected + expected[0].arrived) == [1, 2, 3, 4], "all in one"


RATIO = 25.0
FLEET = TwoClass(num_nodes=10, ratio=RATIO)


def arrivals(log) -> list[tuple[float, int]]:
    """(second, node) of every update."""
    return [
        (s.dispatch.sent_at_s + s.dispatch.local_steps * seconds_of(s.dispatch.node_id), node)
        for s in log.settlements
        if s.outcome == "applied" and (node := s.dispatch.node_id)
    ]


def seconds_of(node: int) -> float:
    return 1.0 if node % 2 == 0 else RATIO


def test_fast_and_slow_nodes_of_a_fleet_arrive_together():
    """A class difference within Q_max / Q_min: one group, again and again."""
    log = trained(FedCompass(4, 100), FLEET, 2000.0, buffer_size=10)
    moments = {}
    for second, node in arrivals(log):
        if second > 220.0:  # first jobs, and the first time round
            moments.setdefault(round(second / RATIO), set()).add(node)
    assert len(moments) >= 15
    assert all(len(nodes) == 10 for nodes in moments.values())


def test_beyond_its_range_the_slow_class_meets_every_fifth_round_of_the_fast_one():
    log = trained(FedCompass(), FLEET, 2001.0)
    slow = {s for s, node in arrivals(log) if seconds_of(node) == RATIO}
    fast = {s for s, node in arrivals(log) if seconds_of(node) == 1.0}
    assert sorted(slow) == [500.0, 1000.0, 1500.0, 2000.0]
    assert slow - {500.0} < fast
    assert len([s for s in fast if 1000.0 < s <= 1500.0]) == 5


@pytest.mark.parametrize(("scheduler", "share"), [(FedCompass(4, 100), 0.2), (FedCompass(), 0.8)])
def test_less_node_time_is_wasted_than_by_equal_steps(scheduler, share):
    """At the same virtual time; a fifth where the classes can meet, less where they cannot."""
    baseline = trained(Uniform(100), FLEET, 2500.0, buffer_size=10).statistics
    ours = trained(scheduler, FLEET, 2500.0, buffer_size=10).statistics
    assert ours.now_s == baseline.now_s
    assert ours.wasted_s < share * baseline.wasted_s


def test_a_slot_left_empty_is_offered_again_when_the_scheduler_says():
    class Late(Uniform):
        def assign(self, idle, now_s):
            return super().assign(idle, now_s) if now_s >= 7.25 else None

        def next_due_s(self):
            return 7.25

    log = trained(Late(1), Scripted(num_nodes=2, times=(1.0, 1.0)), 9.0)
    assert min(second for _, second in log.starts) == 7.25


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"min_steps": 0}, "not 0 and 100"),
        ({"min_steps": 30, "max_steps": 20}, "not 30 and 20"),
        ({"slack": 0.9}, "slack=0.9"),
        ({"ema": 2.0}, "ema=2.0"),
    ],
)
def test_numbers_that_cannot_work_are_refused_by_name(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        FedCompass(**arguments)
