"""AutoConcurrency: as many nodes at work as bring updates of a wanted staleness."""

import pytest

from fedagent import AsyncStrategy, FedAsync, FedBuff
from fedagent.errors import ConfigurationError
from fedagent.rules import RingmasterLMO
from fedagent.scheduling import AutoConcurrency
from fedagent.scheduling.concurrency import ConcurrencyFinder
from fedagent.simulation import Equal, Lognormal, TwoClass
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates
from tests.toy import run


def finder(staleness=4.0):
    return ConcurrencyFinder(AutoConcurrency(staleness))


def looked(durations_s, under_way_s=(), found=None):
    found = found or finder()
    for duration_s in durations_s:
        found.observe(duration_s)
    found.look(under_way_s)
    return found


@pytest.mark.parametrize(
    ("durations_s", "under_way_s", "expected"),
    [
        ([2.0] * 30, [], 40),  # among equals c / K versions: s K
        ([2.0] * 30, [0.0] * 20, 40),  # jobs that have just begun are no news
        ([1.0] * 30 + [9.0] * 10, [], 120),  # mean 3, median 1
        ([1.0] * 30, [9.0] * 10, 120),  # the same, before the slow ones have ended
        ([0.0] * 30, [5.0], 40),  # a clock that is too coarse tells nothing
    ],
)
def test_the_typical_update_is_as_stale_as_wanted(durations_s, under_way_s, expected):
    assert looked(durations_s, under_way_s).limit(20, 1_000, 10.0) == expected


@pytest.mark.parametrize(
    ("cohort", "num_nodes", "per_version", "expected"),
    [
        (20, 1_000, 0.0, 20),  # before the first version
        (50, 1_000, 10.0, 120),
        (200, 1_000, 10.0, 200),  # never fewer than a round has
        (20, 70, 10.0, 70),  # never more than there are
        (20, 12, 10.0, 12),
        (20, 1_000, 1.5, 20),
        (20, 1_000, 2.0, 24),
    ],
)
def test_it_lies_between_the_cohort_and_all_nodes(cohort, num_nodes, per_version, expected):
    found = looked([1.0] * 30 + [9.0] * 10)
    assert found.limit(cohort, num_nodes, per_version) == expected


def test_a_look_is_due_after_ten_jobs_or_a_quarter_of_those_at_work():
    found, due = finder(), []
    for _ in range(12):
        found.observe(1.0)
        due.append((found.is_due(8), found.is_due(44)))
    assert due == [(False, False)] * 9 + [(True, False)] * 1 + [(True, True)] * 2
    found.look([])
    assert not found.is_due(8)


def test_old_jobs_are_forgotten():
    found = looked([1.0] * 150 + [9.0] * 50)
    assert found.limit(0, 1_000, 10.0) == 120
    assert looked([1.0] * 200, found=found).limit(0, 1_000, 10.0) == 40


@pytest.mark.parametrize("staleness", [-1.0, float("nan"), float("inf")])
def test_a_staleness_that_cannot_be_is_refused(staleness):
    with pytest.raises(ConfigurationError, match="staleness"):
        AutoConcurrency(staleness)


# --- in a run -------------------------------------------------------------------------------------


def auto(fleet, updates=600, build=FedBuff, **options):
    strategy = build(
        **{"cohort": 10, "concurrency": "auto", "fraction_evaluate": 0.0} | options,
        stopping=[MaxUpdates(updates)],
    )
    run(strategy, fleet, rounds=10**6)
    return strategy.proxy.statistics


def test_equals_are_no_reason_for_more_however_long_the_run():
    # They answer all at once, so an update meets half of c / K newer versions or all of them.
    seen = auto(Equal(num_nodes=200), buffer_size=10)
    assert (seen.cohort, seen.concurrency) == (10, 40)
    assert 1.0 < seen.staleness_mean < 4.0


def test_jobs_that_wait_at_their_nodes_are_no_slow_ones():
    assert auto(Equal(num_nodes=200), buffer_size=10, prefetch=3).concurrency == 40


def test_slow_nodes_leave_room_for_more():
    equal = auto(Equal(num_nodes=100), buffer_size=5)
    mixed = auto(TwoClass(num_nodes=100, ratio=25.0), buffer_size=5)
    assert mixed.concurrency > 1.5 * equal.concurrency


def test_a_rule_whose_every_update_is_a_version_stays_near_the_cohort():
    assert auto(Lognormal(num_nodes=100), updates=200, build=FedAsync).concurrency <= 20


def test_a_cohort_of_everybody_is_everybody():
    seen = auto(Equal(num_nodes=8), updates=40, cohort=None)
    assert (seen.cohort, seen.concurrency) == (8, 8)


def test_slots_are_counted_as_they_were():
    seen = Statistics(now_s=2.0)
    seen.train_at_once(10)
    for now_s, concurrency, slots_s in [(5.0, 10, 30.0), (5.0, 40, 30.0), (7.0, 5, 110.0)]:
        seen.now_s = now_s
        seen.train_at_once(concurrency)
        assert seen.slots_s == slots_s
    seen.now_s, seen.busy_s, seen.useful_s = 9.0, 60.0, 20.0
    assert (seen.slots_s, seen.utilisation, seen.wasted_s) == (120.0, 0.5, 100.0)


@pytest.mark.parametrize("concurrency", ["many", 0, -3, 2.5, None])
def test_a_concurrency_is_a_number_or_auto(concurrency):
    if concurrency is None:
        assert FedBuff(concurrency=None).options.concurrency is None
        return
    with pytest.raises(ConfigurationError, match="auto"):
        FedBuff(concurrency=concurrency)


@pytest.mark.parametrize(
    ("options", "cohort", "at_once"),
    [
        ({"concurrency": 4}, 4, 4),
        ({"concurrency": 4, "cohort": 3}, 3, 4),
        ({"cohort": 3}, 3, 3),
        ({"fraction_train": 0.25}, 5, 5),
        ({"cohort": 50}, 20, 20),
        ({"fraction_train": 0.25, "concurrency": "auto"}, 5, 5),
    ],
)
def test_a_cohort_and_a_concurrency(options, cohort, at_once):
    options = FedBuff(**options).options
    assert (options.cohort_of(20), options.num_training(20)) == (cohort, at_once)


def test_auto_aims_at_what_the_rule_says_updates_may_be_late():
    assert FedBuff(concurrency="auto").options.concurrency == AutoConcurrency(4.0)
    slow_to_forget = AsyncStrategy(RingmasterLMO(momentum=0.9), concurrency="auto")
    assert slow_to_forget.options.concurrency.staleness == pytest.approx(60.0)
    given = AsyncStrategy(RingmasterLMO(), concurrency=AutoConcurrency(3.0))
    assert given.options.concurrency == AutoConcurrency(3.0)
