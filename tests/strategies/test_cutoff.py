"""Synchronous rounds that do not wait for everybody: when they end, and what that costs."""

import random

import pytest
import torch
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from fedagent.errors import ConfigurationError
from fedagent.simulation import Equal, Reliability, Scripted
from fedagent.strategies.cutoff import Cutoff, Durations, percentile_of
from fedagent.strategies.synchronous import MOST_EMPTY_ROUNDS, Synchronous
from fedagent.wire.records import digest, payload_bytes
from tests.proxy.test_wall_clock import ThreadGrid
from tests.toy import Log, model, run


def fedavg(cohort=2, **settings):
    random.seed(0)
    settings = {
        "fraction_train": 1e-9,
        "min_train_nodes": cohort,
        "fraction_evaluate": 0.0,
    } | settings
    return FedAvg(**settings)


def scripted(*times):
    return Scripted(num_nodes=len(times), times=times)


def watched(fleet, rounds, strategy=None, workers=0, timeout=3600.0, **cutoff):
    """Run FedAvg over the whole fleet, unless told otherwise; return the log and the outcome."""
    log = Log()
    strategy = strategy or fedavg(fleet.num_nodes)
    observed = Synchronous(strategy, callbacks=[log], **cutoff)
    return log, run(observed, fleet, rounds=rounds, workers=workers, timeout=timeout)


def moments(log):
    return [now_s for _, _, now_s in log.versions]


# --- a fixed deadline -----------------------------------------------------------------------------

DEADLINES = [{"deadline_s": 3.0}, {"timeout": 3.0}, {"deadline_s": 3.0, "timeout": 9.0}]


@pytest.mark.parametrize("limit", DEADLINES)
def test_a_round_takes_exactly_its_deadline_and_late_replies_are_late(limit):
    log, _ = watched(scripted(1.0, 2.0, 5.0), rounds=10, **limit)
    seen = log.statistics
    assert moments(log) == [3.0 * n for n in range(1, 11)]
    assert seen.by_outcome() == {"applied": 20, "expired(deadline)": 10}
    assert seen.num_updates == 20
    # The third node does one job after the other, whenever they were sent: until 5, 10, ..., 30.
    assert seen.unsolicited == {"late": 6}
    reply = payload_bytes(RecordDict({"arrays": ArrayRecord(model().state_dict())}))
    assert seen.bytes_up == (20 + 6) * reply
    assert seen.bytes_down == 30 * reply
    assert seen.useful_s == 10 * (1.0 + 2.0)
    assert seen.busy_s == 10 * (1.0 + 2.0) + 3.0 + 1.0, "its second job began at 5, and it was 6"
    assert seen.wasted_s == 3 * 30.0 - seen.useful_s
    assert (seen.in_flight, seen.concurrency, seen.at_work_max) == (0, 3, 3)


@pytest.mark.parametrize("limit", DEADLINES)
def test_what_is_late_never_reaches_the_model(limit):
    _, outcome = watched(scripted(1.0, 2.0, 5.0), rounds=10, **limit)
    _, without = watched(scripted(1.0, 2.0), rounds=10)
    assert digest(outcome.result.arrays) == digest(without.result.arrays)


def test_a_reply_at_the_deadline_is_in_time():
    log, _ = watched(scripted(1.0, 3.0), rounds=2, deadline_s=3.0)
    assert log.statistics.by_outcome() == {"applied": 4}
    assert not log.statistics.unsolicited


def test_a_deadline_that_everybody_meets_changes_nothing():
    log, outcome = watched(scripted(1.0, 2.0, 5.0), rounds=4, deadline_s=100.0)
    plain = run(fedavg(3), scripted(1.0, 2.0, 5.0), rounds=4)
    assert moments(log) == [5.0, 10.0, 15.0, 20.0]
    assert digest(outcome.result.arrays) == digest(plain.result.arrays)


@pytest.mark.parametrize(
    "cutoff", [{"deadline_s": 1.0}, {"deadline_s": 1.0, "over_selection": 1.5}]
)
def test_a_round_that_nobody_makes_in_time_keeps_the_model(cutoff):
    log, outcome = watched(scripted(5.0, 5.0), rounds=3, strategy=fedavg(2), **cutoff)
    assert moments(log) == [1.0, 2.0, 3.0]
    assert log.statistics.by_outcome() == {"expired(deadline)": 6}
    assert not torch.any(outcome.result.arrays.to_torch_state_dict()["weight"])


def test_a_round_of_fewer_than_flowers_minimum_is_aggregated():
    log, outcome = watched(scripted(1.0, 5.0, 5.0), rounds=1, deadline_s=2.0)
    assert log.statistics.num_updates == 1
    assert torch.any(outcome.result.arrays.to_torch_state_dict()["weight"])


@pytest.mark.parametrize("name", ["min_train_nodes", "min_available_nodes"])
def test_a_fleet_that_is_smaller_than_a_cohort_is_refused(name):
    strategy = Synchronous(FedAvg(**{name: 5}))
    with pytest.raises(ConfigurationError, match=f"waits for {name}=5 nodes, and the fleet has 4"):
        run(strategy, Equal(num_nodes=4), rounds=1)


def test_a_run_that_gets_nothing_ends():
    log, _ = watched(scripted(5.0, 5.0), rounds=10**6, deadline_s=1e-6)
    assert log.end.kind == "stalled"
    assert log.statistics.version == MOST_EMPTY_ROUNDS


def test_a_node_that_falls_silent_is_cut_off_like_a_slow_one():
    fleet = Equal(num_nodes=2, reliability=Reliability(silence_rate=1.0))
    log, _ = watched(fleet, rounds=3, deadline_s=4.0)
    assert moments(log) == [4.0, 8.0, 12.0]
    assert log.statistics.by_outcome() == {"expired(deadline)": 6}
    assert not log.statistics.unsolicited


def test_what_a_deadline_drops_goes_on_working():
    log, _ = watched(scripted(*[10.0] * 8), rounds=4, strategy=fedavg(2), deadline_s=1.0)
    assert log.statistics.concurrency == 2
    assert 2 < log.statistics.at_work_max <= 8


def test_only_training_is_cut_off():
    strategy = fedavg(2, fraction_evaluate=1.0)
    log, outcome = watched(scripted(1.0, 10.0), rounds=1, strategy=strategy, deadline_s=3.0)
    # The second node is done with training at 10, and has evaluated at 20.
    assert outcome.virtual_time_s == 20.0
    assert log.statistics.evaluation_outcomes == {("applied", ""): 2}
    assert log.statistics.by_outcome() == {"applied": 1, "expired(deadline)": 1}
    assert log.statistics.unsolicited == {"late": 1}
    assert set(outcome.result.evaluate_metrics_clientapp) == {1}


# --- over-selection -------------------------------------------------------------------------------


def test_a_round_ends_with_the_last_reply_that_is_needed():
    fleet = scripted(*range(1, 14))
    log, _ = watched(fleet, rounds=3, strategy=fedavg(10), over_selection=1.3)
    seen = log.statistics
    assert moments(log) == [10.0, 20.0, 30.0]
    assert seen.by_outcome() == {"applied": 30, "expired(not-needed)": 9}
    assert seen.unsolicited == {"late": 6}, "until 11, 12, 13; 22, 24, 26"
    assert (seen.concurrency, seen.at_work_max) == (13, 13)


def test_no_more_than_are_needed_are_taken_when_all_come_at_once():
    log, _ = watched(Equal(num_nodes=13), rounds=3, strategy=fedavg(10), over_selection=1.3)
    assert log.versions == [(1, 10, 1.0), (2, 20, 2.0), (3, 30, 3.0)]
    assert log.statistics.by_outcome() == {"applied": 30, "expired(not-needed)": 9}
    assert log.statistics.unsolicited == {"late": 9}


@pytest.mark.parametrize(("connected", "asked"), [(10, 10), (11, 11), (13, 13), (40, 13)])
def test_no_more_nodes_are_asked_than_are_connected(connected, asked):
    strategy = fedavg(10)
    log, _ = watched(Equal(num_nodes=connected), 1, strategy=strategy, over_selection=1.3)
    assert log.statistics.num_dispatches == asked
    assert log.statistics.num_updates == 10
    assert strategy.min_train_nodes == 10
    assert "configure_train" not in vars(strategy)


@pytest.mark.parametrize(
    ("cohort", "factor", "asked"), [(10, 1.1, 11), (10, 1.0, 10), (20, 1.3, 26), (3, 1.3, 4)]
)
def test_as_many_are_asked_as_the_factor_says(cohort, factor, asked):
    fleet, strategy = Equal(num_nodes=50), fedavg(cohort)
    log, _ = watched(fleet, rounds=1, strategy=strategy, over_selection=factor)
    assert log.statistics.num_dispatches == asked


def test_a_share_of_the_fleet_is_selected_more_of_too():
    strategy = FedAvg(fraction_train=0.5, fraction_evaluate=0.0)
    log, _ = watched(Equal(num_nodes=20), 1, strategy=strategy, over_selection=1.3)
    assert (log.statistics.num_dispatches, log.statistics.num_updates) == (13, 10)


def test_an_error_is_not_one_of_the_replies_that_are_needed():
    fleet = Scripted(num_nodes=4, times=(2.0, 3.0, 4.0, 9.0), profiles={0: {"failure_rate": 1.0}})
    log, _ = watched(fleet, rounds=1, strategy=fedavg(2), over_selection=2.0)
    assert moments(log) == [4.0]
    assert log.statistics.num_updates == 2


def test_a_strategy_that_samples_in_its_own_way_is_refused():
    strategy = DifferentialPrivacyServerSideFixedClipping(fedavg(), 1.0, 1.0, 2)
    with pytest.raises(ConfigurationError, match="Leave over_selection out"):
        Synchronous(strategy, over_selection=1.3)


# --- an adaptive deadline -------------------------------------------------------------------------


def test_after_a_round_that_waits_for_all_rounds_last_as_long_as_most_jobs_took():
    log, _ = watched(scripted(1.0, 2.0, 3.0, 4.0, 10.0), rounds=4, deadline_percentile=80.0)
    assert moments(log) == [10.0, 14.0, 18.0, 22.0]
    assert log.statistics.num_updates == 5 + 3 * 4
    assert log.statistics.unsolicited == {"late": 1}, "at 20"


def test_the_first_round_has_the_fixed_deadline_if_there_is_one():
    fleet = scripted(1.0, 2.0, 3.0, 4.0, 10.0)
    log, _ = watched(fleet, rounds=3, deadline_s=3.0, deadline_percentile=80.0)
    # Then 1 2 3 and two at work for 3 s; then 1 1 2 2 3 3, a late 4, and two at work for 2 and 6.
    assert moments(log) == [3.0, 6.0, 10.0]


def test_jobs_that_are_still_out_keep_the_deadline_from_falling():
    durations = Durations(Cutoff(deadline_percentile=80.0))
    assert durations.deadline_s([], 50.0) == 50.0
    for duration_s in (1.0, 2.0, 3.0, 4.0):
        durations.observe(duration_s)
    assert durations.deadline_s([], 50.0) == 4.0
    assert durations.deadline_s([7.0], 50.0) == 4.0
    assert durations.deadline_s([7.0, 9.0], 50.0) == 7.0
    assert durations.deadline_s([7.0, 9.0], 6.0) == 6.0


@pytest.mark.parametrize(
    ("percentile", "value"), [(1e-9, 1.0), (25.0, 1.0), (26.0, 2.0), (75.0, 3.0), (100.0, 9.0)]
)
def test_a_percentile_is_one_of_the_values(percentile, value):
    assert percentile_of([9.0, 1.0, 3.0, 2.0], percentile) == value


# --- everywhere -----------------------------------------------------------------------------------

CUTOFFS = [{"deadline_s": 3.0}, {"over_selection": 1.3}, {"deadline_percentile": 60.0}]


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_the_bytes_do_not_depend_on_the_number_of_workers(cutoff):
    def outcome(workers):
        fleet = scripted(1.0, 2.0, 2.5, 5.0, 7.0)
        log, ended = watched(fleet, 4, strategy=fedavg(3), workers=workers, **cutoff)
        return digest(ended.result.arrays), moments(log), log.statistics.by_outcome()

    assert outcome(0) == outcome(1) == outcome(2)


@pytest.mark.parametrize(
    ("seconds", "cutoff", "outcomes"),
    [
        (0.0, {"over_selection": 2.0}, {"applied": 4, "expired(not-needed)": 4}),
        (0.6, {"deadline_s": 0.1}, {"expired(deadline)": 4}),
    ],
)
def test_rounds_end_early_in_real_time_too(seconds, cutoff, outcomes):
    log = Log()
    observed = Synchronous(fedavg(2), callbacks=[log], **cutoff)
    observed.start(ThreadGrid(4, seconds), ArrayRecord(model().state_dict()), num_rounds=2)
    assert log.statistics.by_outcome() == outcomes
    assert not log.statistics.is_virtual
