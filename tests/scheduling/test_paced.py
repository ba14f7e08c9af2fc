"""Paced: every job lasts about D seconds, transfers included."""

import statistics

import pytest

from fedagent.errors import ConfigurationError
from fedagent.scheduling import Paced
from fedagent.simulation import Links, Lognormal, TwoClass
from tests.scheduling.fleet import done, idle_of, trained


def known(costs: dict[int, tuple[float, float]], **arguments) -> Paced:
    scheduler = Paced(**arguments)
    for node, (overhead, step) in costs.items():
        for steps in (1, 2):
            scheduler.observe(done(node, steps, overhead + steps * step))
    return scheduler


def steps_of(scheduler, node):
    return scheduler.assign(idle_of(node), now_s=0.0).local_steps


@pytest.mark.parametrize(("node", "steps"), [(1, 20), (2, 4), (3, 1), (4, 16), (5, 1), (6, 10)])
def test_steps_are_what_fits_into_the_pace_beside_the_messages(node, steps):
    costs = {
        1: (0.0, 0.01),  # no more than max_steps
        2: (0.0, 0.5),
        3: (0.0, 9.0),  # one at least
        4: (0.4, 0.1),
        5: (3.0, 0.1),  # its messages alone take longer
        6: (0.0, 0.2),  # fits exactly
    }
    assert steps_of(known(costs, pace_s=2.0, max_steps=20), node) == steps


def test_of_a_node_that_nobody_knows_the_first_job_is_short():
    scheduler = known({1: (0.0, 0.1)}, pace_s=2.0, first_steps=3, learning_rate=0.3)
    job = scheduler.assign(idle_of(9), now_s=0.0)
    assert (job.local_steps, job.learning_rate) == (3, 0.3)


def test_a_node_whose_link_is_slow_is_told_from_one_that_computes_slowly():
    scheduler = Paced(pace_s=8.0, max_steps=50)
    given = []
    for _ in range(6):
        steps = steps_of(scheduler, 1)
        given.append(steps)
        scheduler.observe(done(1, steps, 6.0 + 0.1 * steps))
    assert given == [1, 2, 20, 20, 20, 20]


@pytest.mark.parametrize(
    ("pace_s", "expected"), [(5.0, [8, 3, 2, 2]), (20.0, [8, 8, 8, 8]), (None, [8, 1, 3, 3])]
)
def test_a_first_job_of_the_most_steps_is_followed_by_what_fits(pace_s, expected):
    scheduler = Paced(pace_s, max_steps=8, first_steps=8, communication_share=0.5)
    given = []
    for _ in range(4):
        given.append(steps_of(scheduler, 1))
        scheduler.observe(done(1, given[-1], 3.0 + given[-1]))
    assert given == expected


def test_the_pace_leaves_so_much_of_a_typical_job_to_communication():
    scheduler = known(dict.fromkeys(range(9), (3.0, 0.1)), communication_share=0.2, max_steps=500)
    assert scheduler.pace_s == pytest.approx(15.0)
    assert steps_of(scheduler, 1) == 120


def test_where_messages_cost_nothing_the_pace_is_a_typical_nodes_steps():
    steps = {n: (0.0, 0.1 * 2**n) for n in range(5)}
    scheduler = known(steps, typical_steps=3)
    assert scheduler.pace_s == pytest.approx(3 * 0.4)
    assert [steps_of(scheduler, n) for n in range(5)] == [12, 6, 3, 1, 1]


def test_the_pace_is_looked_at_every_twenty_jobs_once_some_are_known():
    scheduler = Paced(typical_steps=2)
    seen = []
    for node in range(1, 45):  # every node steps slower than the one before
        for steps in (1, 2):
            scheduler.observe(done(node, steps, 0.1 * node * steps))
        seen.append(scheduler.pace_s)
    # Of a node's two jobs the second tells it apart; the median of the first k is (k + 1) / 2.
    expected = [0.1 * (k + 1) for k in (*range(1, 21), *[20] * 19, *[40] * 5)]
    assert seen == pytest.approx(expected)


def steps_at(scheduler, now_s):
    return [scheduler.assign(idle_of(node), now_s).local_steps for node in (0, 8)]


FAST, SLOW = (0.0, 1.0), (1.0, 24.0)


def test_the_pace_grows_with_the_run_until_the_slowest_keeps_up():
    scheduler = known(dict.fromkeys(range(8), FAST) | {8: SLOW}, run_share=0.1)
    at_s = (0.0, 15.0, 40.0, 200.0, 10_000.0)
    assert [steps_at(scheduler, now_s) for now_s in at_s] == [[b, 1] for b in (2, 2, 4, 20, 25)]
    resumed = Paced(run_share=0.1)
    resumed.load_state_dict(scheduler.state_dict())
    assert steps_at(resumed, 200.0) == [20, 1]


@pytest.mark.parametrize(
    ("last", "arguments"), [(FAST, {}), (SLOW, {"run_share": 0.0}), (SLOW, {"pace_s": 2.0})]
)
def test_a_pace_that_nobody_is_left_behind_by_or_that_was_given_does_not_grow(last, arguments):
    scheduler = known(dict.fromkeys(range(8), FAST) | {8: last}, **arguments)
    assert steps_at(scheduler, 10_000.0)[0] == 2


def test_slow_nodes_are_heard_more_often_when_the_pace_grows():
    def share(run_share):
        fleet = TwoClass(num_nodes=20, ratio=20.0)
        log = trained(Paced(run_share=run_share), fleet, seconds=600.0)
        late = [s for s in log.settlements if s.dispatch.sent_at_s > 300.0]
        return statistics.fmean(s.duration_s / s.dispatch.local_steps > 19.0 for s in late)

    assert share(0.05) > 3 * share(0.0)


def test_a_budget_of_bytes_makes_jobs_longer_and_never_shorter():
    scheduler = Paced(pace_s=2.0, max_steps=1_000, bytes_per_s=1_000.0)
    for node in range(10):  # ten nodes at 0.1 s per step, 6,000 bytes each way
        for steps in (1, 2):
            scheduler.plan(node, 0.0)
            scheduler.observe(done(node, steps, 0.1 * steps, num_bytes=12_000))
    # The k-th at work makes it k jobs of 12,000 bytes: 12 s each are 1,000 bytes per second.
    assert [scheduler.plan(node, 0.0).local_steps for node in range(3)] == [120, 240, 360]
    for node in range(3):
        scheduler.lost(node)
    assert scheduler.plan(0, 0.0).local_steps == 120
    scheduler.lost(0)
    rich = Paced(pace_s=2.0, max_steps=1_000, bytes_per_s=1e12)
    rich.load_state_dict(scheduler.state_dict())
    assert rich.plan(1, 0.0).local_steps == 20


def test_jobs_that_wait_at_their_nodes_take_no_bytes_yet():
    scheduler = Paced(pace_s=2.0, max_steps=1_000, bytes_per_s=1_000.0)
    for node in range(2):
        for steps in (1, 2):
            scheduler.plan(node, 0.0)
            scheduler.observe(done(node, steps, 0.1 * steps, num_bytes=12_000))
    assert [scheduler.plan(node, 0.0).local_steps for node in (0, 0, 1, 0)] == [120, 120, 240, 240]
    scheduler.lost(0)
    scheduler.lost(0)
    assert scheduler.plan(1, 0.0).local_steps == 240, "one of its jobs is under way"
    scheduler.lost(0)
    assert scheduler.plan(1, 0.0).local_steps == 120
    scheduler.lost(5)  # of a job that it has not given out
    assert scheduler.plan(1, 0.0).local_steps == 120


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_fleet_keeps_a_budget_of_bytes(prefetch):
    def bytes_per_s(**budget):
        scheduler = Paced(max_steps=500, **budget)
        fleet = Lognormal(num_nodes=30)
        log = trained(scheduler, fleet, seconds=200.0, prefetch=prefetch)
        late = [s for s in log.settlements if s.dispatch.sent_at_s > 100.0]
        return sum(s.dispatch.bytes_down + s.bytes_up for s in late) / 100.0

    free = bytes_per_s()
    assert bytes_per_s(bytes_per_s=free / 5) == pytest.approx(free / 5, rel=0.35)


def test_a_given_pace_is_kept():
    scheduler = known(dict.fromkeys(range(9), (3.0, 0.1)), pace_s=2.0)
    assert scheduler.pace_s == 2.0


@pytest.mark.parametrize("latency_s", [0.0, 2.0])
def test_jobs_of_a_fleet_last_as_long_as_the_pace(latency_s):
    fleet = TwoClass(num_nodes=20, ratio=8.0, links=Links(latency_s=latency_s))
    log = trained(Paced(pace_s=20.0, max_steps=100), fleet, seconds=600.0)
    late = [s for s in log.settlements if s.dispatch.sent_at_s > 120.0 and s.outcome == "applied"]
    assert len(late) > 200
    assert all(11.0 < s.duration_s <= 20.0 + 1e-6 for s in late)


def test_a_pace_that_is_found_follows_the_fleets_links():
    def median_s(links):
        log = trained(Paced(), Lognormal(num_nodes=30, links=links), seconds=200.0)
        return statistics.median(s.duration_s for s in log.settlements if s.outcome == "applied")

    assert median_s(Links(latency_s=5.0)) > 3 * median_s(Links())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"pace_s": 0.0}, r"pace_s=0\.0 must be positive"),
        ({"max_steps": 4, "first_steps": 9}, "first_steps=9"),
        ({"max_steps": 4, "typical_steps": 9}, "typical_steps=9"),
        ({"first_steps": 0}, "first_steps=0"),
        ({"run_share": 1.0}, r"run_share=1\.0"),
        ({"bytes_per_s": 0.0}, r"bytes_per_s=0\.0 must be positive"),
        ({"communication_share": 0.0}, r"communication_share=0\.0"),
        ({"communication_share": 1.1}, r"communication_share=1\.1"),
    ],
)
def test_what_cannot_work_is_refused_by_name(arguments, says):
    with pytest.raises(ConfigurationError, match=says):
        Paced(**arguments)
