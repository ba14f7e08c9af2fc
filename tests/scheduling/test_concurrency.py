"""AutoConcurrency: as many nodes at work as bring updates of a wanted staleness."""

import pytest

from fedagent import FedAsync, FedBuff
from fedagent.errors import ConfigurationError
from fedagent.scheduling import AutoConcurrency
from fedagent.scheduling.concurrency import ConcurrencyFinder
from fedagent.simulation import Equal, Lognormal, TwoClass
from fedagent.statistics import Statistics
from fedagent.stopping import MaxUpdates
from tests.toy import run


def finder(staleness=4.0):
    return ConcurrencyFinder(AutoConcurrency(staleness))


def widths(seen, windows, cohort=10, num_nodes=1_000, per_version=0.0):
    """Return c after each of some windows of updates that were `seen(c)` versions old."""
    found, after = finder(), []
    width = found.limit(cohort, num_nodes, per_version)
    for _ in range(windows):
        before = width
        for _ in range(3 * before):  # those under way, and as many again
            if width == before:
                found.observe(seen(width))
                width = found.limit(cohort, num_nodes, per_version)
        after.append(width)
    return after


def test_fresh_updates_double_it_until_all_are_at_work():
    assert widths(lambda c: 0, windows=4, num_nodes=70) == [20, 40, 70, 70]


def test_stale_updates_halve_it_down_to_the_cohort_or_what_is_always_allowed():
    found = finder()
    found.load_state_dict({"width": 200.0, "before": 0, "seen": [60] * 200})
    assert found.limit(30, 1_000, 10.0) == 100
    found.load_state_dict({"width": 45.0, "before": 0, "seen": [60] * 45})
    assert found.limit(30, 1_000, 10.0) == 40  # s K, whose mean staleness is s
    found.load_state_dict({"width": 45.0, "before": 0, "seen": [60] * 45})
    assert found.limit(30, 1_000, 1.0) == 30


def test_it_settles_where_the_median_is_what_is_wanted():
    # Little's law among equals with K = 20: c / 20 versions, so c = 80 has a median of 4.
    after = widths(lambda c: round(c / 20), windows=12)
    assert after[-1] == pytest.approx(80, abs=12)


def test_updates_handed_out_under_another_concurrency_tell_nothing():
    found = finder()
    seen = [found.limit(10, 100, 0.0)]
    for _ in range(9 + 1 + 10 + 19 + 1):  # ten, then those ten under way, then twenty
        found.observe(0)
        seen.append(found.limit(10, 100, 0.0))
    assert seen == [10] * 10 + [20] * 30 + [40]


def test_where_fresh_updates_are_wanted_fresh_ones_are_no_reason_for_more():
    found = finder(0.0)
    found.load_state_dict({"width": 45.0, "before": 0, "seen": [0] * 45})
    assert found.limit(10, 1_000, 0.0) == 45


def test_what_was_seen_before_a_change_tells_nothing_after_it():
    found = finder()
    found.limit(10, 100, 0.0)
    for _ in range(9):
        found.observe(0)
    assert found.limit(20, 100, 0.0) == 20  # a larger cohort, in the middle of a window
    for _ in range(10 + 19):  # ten under way, and one less than a window
        found.observe(0)
    assert found.limit(20, 100, 0.0) == 20
    found.observe(0)
    assert found.limit(20, 100, 0.0) == 40


def test_the_first_version_allows_what_its_buffer_does():
    found = finder()
    assert [found.limit(10, 100, k) for k in (0.0, 0.0, 5.0, 5.0)] == [10, 10, 20, 20]


def test_a_few_ancient_updates_count_little():
    def seen(_):
        return 500 if next(turn) % 4 == 0 else 0  # a slow node in four

    turn = iter(range(10_000))
    assert widths(seen, windows=3, num_nodes=60) == [20, 40, 60]


def test_what_was_found_goes_on_from_a_state():
    one, other = finder(), finder()
    one.limit(10, 100, 0.0)
    for _ in range(7):
        one.observe(1)
    other.load_state_dict(one.state_dict())
    for found in (one, other):
        for _ in range(3):
            found.observe(1)
    assert one.limit(10, 100, 0.0) == other.limit(10, 100, 0.0) == 20


def test_a_fleet_that_shrinks_and_grows_is_followed():
    found = finder()
    assert [found.limit(30, n, 10.0) for n in (100, 12, 100)] == [40, 12, 40]


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


def test_among_equals_the_mean_staleness_is_what_is_wanted():
    seen = auto(Equal(num_nodes=200), buffer_size=10)
    assert seen.cohort == 10
    assert 40 <= seen.concurrency <= 90
    assert seen.staleness_mean == pytest.approx(4.0, abs=1.5)


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
    with pytest.raises(ConfigurationError, match='"auto"'):
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
