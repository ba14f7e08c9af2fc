"""Tiers by hand, and what holds for them whatever is lost."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagent.scheduling import Tiers
from fedagent.update import Group
from tests.scheduling.fleet import SteadyFleet, done, idle_of


def handed_out(scheduler, idle, now_s=0.0):
    jobs = []
    while job := scheduler.assign(idle, now_s):
        idle.discard(job.node_id)
        jobs.append(job)
    return jobs


def ranked(seconds: dict[int, float], **arguments) -> Tiers:
    """Return a scheduler that knows the nodes."""
    scheduler = Tiers(**{"local_steps": 8} | arguments)
    for job in handed_out(scheduler, idle_of(*seconds)):
        scheduler.observe(done(job.node_id, 1, seconds[job.node_id]))
    return scheduler


TEN = {node: 1.0 + node for node in range(10)}


def test_every_node_is_ranked_by_one_short_job_of_no_tier():
    jobs = handed_out(Tiers(2, 3, local_steps=8), idle_of(*TEN))
    assert sorted(job.node_id for job in jobs) == list(TEN)
    assert {(job.local_steps, job.group) for job in jobs} == {(1, None)}
    (job,) = handed_out(Tiers(first_steps=None, local_steps=8), idle_of(1))
    assert job.local_steps == 8


@pytest.mark.parametrize(
    ("num_tiers", "expected"),
    [
        (1, [0] * 10),
        (2, [0] * 5 + [1] * 5),
        (3, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (5, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_tiers_are_quantiles_of_how_long_a_job_took(num_tiers, expected):
    scheduler = ranked(TEN, num_tiers=num_tiers, cohort=1)
    handed_out(scheduler, idle_of(*TEN))
    assert [scheduler.tiers[node] for node in TEN] == expected


def test_equally_fast_nodes_are_shared_out():
    scheduler = ranked(dict.fromkeys(range(10), 1.0), num_tiers=5, cohort=1)
    handed_out(scheduler, idle_of(*range(10)))
    assert Counter(scheduler.tiers.values()) == dict.fromkeys(range(5), 2)


def test_fewer_nodes_than_tiers_make_fewer_tiers():
    scheduler = ranked({1: 1.0, 2: 2.0, 3: 3.0}, num_tiers=5, cohort=10)
    jobs = handed_out(scheduler, idle_of(1, 2, 3))
    assert [job.group.size for job in jobs] == [1, 1, 1]
    assert scheduler.tiers[1] < scheduler.tiers[2] < scheduler.tiers[3]


def test_nobody_waits_for_the_slowest_to_be_ranked():
    scheduler, idle = Tiers(2, 2, local_steps=8), idle_of(*range(4))
    handed_out(scheduler, idle)
    for node, seconds in ((2, 1.0), (0, 2.0)):
        idle.add(node)
        assert scheduler.assign(idle, 9.0) is None
        scheduler.observe(done(node, 1, seconds))
    jobs = handed_out(scheduler, idle)
    assert {(job.node_id, job.group, job.local_steps) for job in jobs} == {
        (0, Group(0, 2), 8),
        (2, Group(0, 2), 8),
    }
    scheduler.observe(done(1, 1, 30.0))
    idle.add(1)
    assert scheduler.assign(idle, 30.0) is None, "its tier is not complete"
    scheduler.observe(done(3, 1, 90.0))
    idle.add(3)
    assert {job.group for job in handed_out(scheduler, idle)} == {Group(1, 2)}


@pytest.mark.parametrize(("seconds", "tier"), [(0.1, 0), (5.0, 0), (5.1, 1), (99.0, 1)])
def test_a_node_that_comes_later_finds_its_tier_by_the_slowest_of_each(seconds, tier):
    scheduler = ranked(TEN, num_tiers=2, cohort=5)
    handed_out(scheduler, idle_of(*range(9)))
    first = scheduler.assign(idle_of(77), 0.0)
    assert (first.node_id, first.local_steps, first.group) == (77, 1, None)
    scheduler.observe(done(77, 1, seconds))
    assert scheduler.tiers[77] == tier


def test_a_round_asks_its_cohort_and_waits_for_all_of_it():
    scheduler = ranked(TEN, num_tiers=2, cohort=3)
    idle = idle_of(*TEN)
    first = handed_out(scheduler, idle)
    assert Counter(job.group for job in first) == {Group(0, 3): 3, Group(1, 3): 3}
    fast = [job.node_id for job in first if job.group.number == 0]
    for node in fast[:2]:
        scheduler.observe(done(node, 8, 8.0))
        idle.add(node)
        assert scheduler.assign(idle, 8.0) is None
    scheduler.observe(done(fast[2], 8, 8.0))
    idle.add(fast[2])
    assert [job.group for job in handed_out(scheduler, idle)] == [Group(0, 3)] * 3


def test_a_small_tier_asks_all_it_has():
    scheduler = ranked(TEN, num_tiers=5, cohort=4)
    jobs = handed_out(scheduler, idle_of(*TEN))
    assert sorted(job.node_id for job in jobs) == list(TEN)
    assert {job.group for job in jobs} == {Group(m, 2) for m in range(5)}


@pytest.mark.parametrize(
    "end",
    [Tiers.lost, lambda tiers, node: tiers.observe(done(node, 4, 1.0, is_used=False))],
    ids=["lost", "refused"],
)
def test_another_node_of_the_tier_takes_the_place_of_one_that_brought_nothing(end):
    scheduler = ranked(TEN, num_tiers=2, cohort=3)
    idle = idle_of(*TEN)
    first = handed_out(scheduler, idle)
    gone = next(job.node_id for job in first if job.group.number == 1)
    end(scheduler, gone)
    idle.add(gone)  # at once, and it is not asked again while others are there
    (instead,) = handed_out(scheduler, idle)
    assert instead.group == Group(1, 3)
    assert instead.node_id in set(range(5, 10)) - {job.node_id for job in first}


def test_where_no_other_is_left_one_is_asked_again_once_nobody_is_waited_for():
    scheduler = ranked({1: 1.0, 2: 2.0}, num_tiers=1, cohort=2)
    idle = idle_of(1, 2)
    handed_out(scheduler, idle)
    scheduler.lost(1)
    idle.add(1)
    assert scheduler.assign(idle, 0.0) is None, "node 2 is at work"
    scheduler.observe(done(2, 8, 9.0))
    idle.add(2)
    (again,) = handed_out(scheduler, idle)
    assert again.group == Group(0, 2)
    scheduler.observe(done(again.node_id, 8, 9.0))
    assert len(handed_out(scheduler, idle_of(1, 2))) == 2, "a new round"


def test_a_node_whose_first_job_is_lost_is_ranked_when_it_is_back():
    scheduler, idle = Tiers(2, 1), idle_of(1, 2)
    handed_out(scheduler, idle)
    scheduler.lost(1)
    scheduler.observe(done(2, 1, 5.0))
    assert scheduler.assign(idle_of(2), 5.0).group == Group(0, 1)
    assert scheduler.assign(idle_of(1), 5.0) is None, "new nodes are found as rounds are filled"
    scheduler.observe(done(2, 8, 5.0))
    assert scheduler.assign(idle_of(1), 6.0).group is None


def test_slots_are_shared_by_tiers_where_there_are_too_few():
    scheduler = ranked(TEN, num_tiers=2, cohort=5)
    for _ in range(2):  # one slot for all: whoever has waited longest for a round's end has it
        rounds = []
        for _ in range(10):
            job = scheduler.assign(idle_of(*TEN), 0.0)
            rounds.append(job.group.number)
            scheduler.observe(done(job.node_id, 8, 1.0))
        assert sorted(rounds) == [0] * 5 + [1] * 5


def test_within_a_tier_nodes_are_equally_likely():
    scheduler, asked = ranked(TEN, num_tiers=2, cohort=2), Counter()
    for _ in range(2_000):
        for job in handed_out(scheduler, idle_of(*TEN)):
            asked[job.node_id] += 1
            scheduler.observe(done(job.node_id, 8, 1.0))
    assert all(700 < asked[node] < 900 for node in TEN), asked  # 800, sd 22


def test_jobs_that_a_run_on_a_real_fleet_hears_of_again_leave_the_same_state():
    """Its scheduler plans them, without being asked whom."""
    scheduler, again = Tiers(2, 3, local_steps=8), Tiers(2, 3, local_steps=8)
    for _ in range(2):
        jobs = handed_out(scheduler, idle_of(*TEN))
        assert [again.plan(job.node_id, 0.0) for job in jobs] == jobs
        for job in jobs:
            for heard in (scheduler, again):
                heard.observe(done(job.node_id, job.local_steps, TEN[job.node_id]))
    assert again.state_dict() | {"generator": 0} == scheduler.state_dict() | {"generator": 0}


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    num_tiers=st.integers(1, 4),
    cohort=st.integers(1, 5),
    num_nodes=st.integers(1, 12),
)
def test_every_round_ends_with_its_size_whatever_is_lost(data, num_tiers, cohort, num_nodes):
    scheduler = Tiers(num_tiers, cohort, local_steps=2)
    idle, at_work, received = idle_of(*range(num_nodes)), [], Counter()
    for _ in range(60):
        at_work += handed_out(scheduler, idle)
        in_rounds = Counter(job.group.number for job in at_work if job.group)
        assert all(count <= cohort for count in in_rounds.values())
        assert at_work, "somebody works as long as all come back"
        job = at_work.pop(data.draw(st.integers(0, len(at_work) - 1)))
        idle.add(job.node_id)
        if data.draw(st.integers(0, 3)) == 0:
            scheduler.lost(job.node_id)
            continue
        scheduler.observe(done(job.node_id, 2, data.draw(st.sampled_from([1.0, 2.0, 3.0]))))
        if job.group:
            received[job.group.number] += 1
            under_way = next(t for t in scheduler._turns if t.number == job.group.number)
            assert under_way.num_received == received[job.group.number] % job.group.size
            if under_way.size == 0:
                received[job.group.number] = 0
    again = Tiers(num_tiers, cohort, local_steps=2)
    again.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    assert again.state_dict() == scheduler.state_dict()


def test_on_a_fleet_fast_tiers_have_more_rounds():
    seconds = {node: 1.0 + node**2 for node in range(8)}
    scheduler, fleet, rounds = Tiers(4, 2, local_steps=4), SteadyFleet(seconds), Counter()
    jobs = fleet.hand_out(scheduler)
    for _ in range(300):
        jobs += fleet.turn(scheduler)
    rounds = Counter(job.group.number for job in jobs if job.group)
    assert rounds[0] > rounds[1] > rounds[2] > rounds[3] > 0
