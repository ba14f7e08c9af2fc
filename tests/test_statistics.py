"""Running totals: every dispatch is counted once, and the counts add up."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.statistics import (
    KEPT_EVALUATIONS,
    KEPT_VALUES,
    MOST_REASONS,
    OTHER,
    Evaluation,
    Statistics,
)
from fedagent.update import Dispatch, Kind, Outcome


def dispatch(kind: Kind = Kind.TRAIN, sent_at_s: float = 0.0) -> Dispatch:
    return Dispatch("id", 1, 0, "token", sent_at_s, sent_at_s + 60.0, kind)


def test_dispatch_is_in_flight_until_it_settles():
    statistics = Statistics()

    statistics.dispatched(Kind.TRAIN, 100)
    assert (statistics.in_flight, statistics.num_dispatches) == (1, 1)

    statistics.settled(dispatch(), Outcome.APPLIED, "", 40)
    assert (statistics.in_flight, statistics.num_dispatches) == (0, 1)
    assert (statistics.bytes_down, statistics.bytes_up) == (100, 40)


def test_evaluation_counts_its_bytes_but_takes_no_training_slot():
    statistics = Statistics(now_s=5.0)

    statistics.dispatched(Kind.EVALUATE, 100)
    statistics.settled(dispatch(Kind.EVALUATE), Outcome.FAILED, "node-unavailable", 7)

    assert (statistics.in_flight, statistics.num_dispatches, statistics.busy_s) == (0, 0, 0.0)
    assert (statistics.bytes_down, statistics.bytes_up) == (100, 7)
    assert statistics.evaluation_outcomes == {(Outcome.FAILED, "node-unavailable"): 1}
    assert not statistics.outcomes


def test_bytes_between_regions_are_those_of_messages_that_left_theirs():
    statistics = Statistics()

    statistics.dispatched(Kind.TRAIN, 100)
    assert statistics.bytes_between_regions == 0
    statistics.dispatched(Kind.TRAIN, 30, is_remote=True)
    assert statistics.bytes_between_regions == 30
    statistics.settled(dispatch(), Outcome.APPLIED, "", 7)
    statistics.settled(dispatch(), Outcome.APPLIED, "", 2, is_remote=True)

    assert statistics.node_bytes_between_regions == 32
    assert (statistics.bytes_down, statistics.bytes_up) == (130, 9)


@pytest.mark.parametrize(
    "many",
    [
        {"values": [0.0] * (KEPT_VALUES // 10)},
        {f"value-{i}": 0.0 for i in range(KEPT_VALUES // 10)},
    ],
    ids=["in a list", "by name"],
)
def test_of_evaluations_with_many_values_fewer_are_kept(many):
    statistics = Statistics()
    for version in range(25):
        statistics.evaluated(Evaluation(version, 0.0, version, "server", many))
    assert [e.version for e in statistics.evaluations] == list(range(15, 25))
    huge = {"values": [0.0] * (2 * KEPT_VALUES)}
    statistics.evaluated(Evaluation(25, 0.0, 25, "server", huge))
    assert [e.version for e in statistics.evaluations] == [25]
    assert statistics.num_evaluations == 26
    statistics.evaluated(Evaluation(26, 0.0, 26, "server", {}))
    assert [e.version for e in statistics.evaluations] == [26]


def test_the_newest_evaluations_are_kept_and_all_are_counted():
    statistics = Statistics()
    for version in range(KEPT_EVALUATIONS + 7):
        statistics.evaluated(Evaluation(version, 0.0, 0, "server", {}))

    assert statistics.num_evaluations == KEPT_EVALUATIONS + 7
    assert [e.version for e in statistics.evaluations] == list(range(7, KEPT_EVALUATIONS + 7))
    since = statistics.evaluations_since(KEPT_EVALUATIONS + 4)
    assert [e.version for e in since] == list(range(KEPT_EVALUATIONS + 4, KEPT_EVALUATIONS + 7))
    assert statistics.evaluations_since(KEPT_EVALUATIONS + 7) == []
    assert len(statistics.evaluations_since(0)) == KEPT_EVALUATIONS


@pytest.mark.parametrize("kind", list(Kind))
def test_reasons_without_end_are_counted_together(kind):
    statistics = Statistics()
    for code in range(5000):
        statistics.dispatched(kind, 0)
        statistics.settled(dispatch(kind), Outcome.FAILED, f"error-{code}", 0)
    outcomes = {
        Kind.TRAIN: statistics.outcomes,
        Kind.EVALUATE: statistics.evaluation_outcomes,
        Kind.UNMASK: statistics.unmasking_outcomes,
    }[kind]
    assert outcomes.total() == 5000
    assert outcomes[Outcome.FAILED, "error-0"] == 1
    assert outcomes[Outcome.FAILED, OTHER] == 5000 - MOST_REASONS
    assert len(outcomes) <= MOST_REASONS + len(Outcome)


def test_busy_time_is_summed_from_dispatch_to_outcome():
    statistics = Statistics(concurrency=2)
    for sent_at_s, now_s in ((0.0, 4.0), (1.0, 6.0)):
        statistics.dispatched(Kind.TRAIN, 0)
        statistics.now_s = now_s
        statistics.settled(dispatch(sent_at_s=sent_at_s), Outcome.APPLIED, "", 0)

    assert statistics.busy_s == 4.0 + 5.0
    assert statistics.utilisation == 9.0 / (2 * 6.0)


@pytest.mark.parametrize(
    ("busy_s", "concurrency", "now_s", "expected"),
    [(1.0, 0, 5.0, 0.0), (0.0, 3, 0.0, 0.0), (99.0, 1, 5.0, 1.0), (5.0, 2, 5.0, 0.5)],
)
def test_utilisation_is_a_share(busy_s, concurrency, now_s, expected):
    statistics = Statistics(busy_s=busy_s, concurrency=concurrency, now_s=now_s)

    assert statistics.utilisation == expected


def test_staleness_mean_and_maximum_are_over_received_updates():
    statistics = Statistics()
    assert statistics.staleness_mean == 0.0

    for tau in (0, 7, 2):
        statistics.received(tau, 1.0)

    assert statistics.num_updates == 3
    assert statistics.staleness_mean == 3.0
    assert statistics.staleness_max == 7


def test_time_behind_late_updates_is_useful_in_part():
    statistics = Statistics(concurrency=2, now_s=10.0)

    statistics.received(0, 2.5)
    statistics.received(3, 7.0)

    assert statistics.useful_s == 2.5 + 7.0 / 2
    assert statistics.wasted_s == 20.0 - 6.0


@pytest.mark.parametrize(("num_jobs", "is_named"), [(2, False), (3, True), (4, True), (99, True)])
def test_a_node_is_named_once_it_has_had_its_chance(num_jobs, is_named):
    counts = Counter({"failed": 1, "expired": num_jobs - 1})
    named = {7: dict(counts)} if is_named else {}

    assert Statistics(fruitless={7: counts}).fruitless_nodes() == named


def test_outcomes_read_as_words_with_their_reasons():
    statistics = Statistics()
    statistics.settled(dispatch(), Outcome.REJECTED, "non-finite", 0)
    statistics.settled(dispatch(), Outcome.APPLIED, "", 0)
    statistics.settled(dispatch(), Outcome.APPLIED, "", 0)
    statistics.settled(dispatch(), Outcome.REJECTED, "keys", 0)

    assert statistics.by_outcome() == {"applied": 2, "rejected(keys)": 1, "rejected(non-finite)": 1}


endings = st.tuples(st.sampled_from(Outcome), st.sampled_from(["", "deadline", "keys"]))


@given(st.lists(st.one_of(st.none(), endings)))
def test_every_dispatch_is_in_flight_or_has_one_outcome(events):
    """None sends one more; anything else ends one of those in flight."""
    statistics, sent, ended = Statistics(), 0, 0
    for event in events:
        if event is None:
            statistics.dispatched(Kind.TRAIN, 1)
            sent += 1
        elif ended < sent:
            statistics.settled(dispatch(), *event, payload_bytes=1)
            ended += 1

    assert statistics.num_dispatches == sent
    assert statistics.in_flight == sent - ended
    assert sum(statistics.by_outcome().values()) == ended
    assert (statistics.bytes_down, statistics.bytes_up) == (sent, ended)


def test_names_of_metrics_that_clients_made_up_are_safe_to_print():
    evaluation = Evaluation(1, 0.0, 4, "clients", {"\x1b[2Jloss\n": 0.5, "x" * 10**6: 1.0})
    assert all(name.isprintable() and len(name) < 600 for name in evaluation.numbers)
