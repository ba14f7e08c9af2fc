"""The simulated grid: how long jobs take, in which order they end, and how nodes fail."""

import math
import time
from collections import Counter

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, Krum, strategy_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from fedagent._flower import ErrorCode, empty_run
from fedagent.nodes.geography import Listed
from fedagent.simulation import Equal, Geography, Links, Reliability
from fedagent.update import Outcome
from fedagent.wire.records import payload_bytes
from tests.simulation.apps import (
    arrays,
    count,
    draw,
    echo,
    fleet_of,
    grid_of,
    metrics,
    node_of,
    request,
)

PAYLOAD_BYTES = 136  # of two float32: 128 bytes of header and 8 of data


def ask(grid: Grid, *messages, timeout: float | None = None):
    return list(grid.send_and_receive(messages, timeout=timeout))


def arrivals(grid: Grid, ids) -> list[tuple[float, int]]:
    """Pull until nothing comes any more: (virtual time, node) of every reply."""
    seen = []
    while replies := list(grid.pull_messages(ids)):
        seen += [(grid.clock.now(), node_of(r)) for r in replies]
    return seen


# --- how long a job takes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "steps", "expected_s"),
    [
        ({}, 1, 0.25),
        ({}, 12, 3.0),
        ({"latency_s": 1.5}, 1, 1.75),
        ({"download_bytes_per_s": 34.0}, 1, 4.25),
        ({"upload_bytes_per_s": 17.0}, 1, 8.25),
        (
            {"latency_s": 1.5, "download_bytes_per_s": 34.0, "upload_bytes_per_s": 17.0},
            12,
            1.5 + 4.0 + 3.0 + 8.0,
        ),
    ],
)
def test_a_job_takes_latency_download_steps_and_upload(fields, steps, expected_s):
    grid = grid_of(fleet_of(0.25, profiles={0: fields}))
    message = request(0, **{"local-steps": steps})
    assert payload_bytes(message.content) == PAYLOAD_BYTES
    ask(grid, message)
    assert grid.clock.now() == expected_s


def test_regions_that_are_told_by_node_id_have_the_slow_link():
    fleet = Equal(num_nodes=3)
    regions = Listed([[fleet.node_ids[0], fleet.node_ids[2]], [fleet.node_ids[1]]], key="node-id")
    grid = grid_of(Equal(num_nodes=3, geography=Geography(regions, Links(latency_s=4.0))))
    ids = list(grid.push_messages([request(n) for n in range(3)]))
    assert arrivals(grid, ids) == [(1.0, 0), (1.0, 2), (5.0, 1)]
    assert grid.statistics.bytes_between_regions == 2 * PAYLOAD_BYTES


def test_the_upload_is_as_long_as_the_reply_not_the_request():
    grid = grid_of(
        fleet_of(1.0, profiles={0: {"upload_bytes_per_s": 1.0}}), lambda message, context: metrics()
    )
    ask(grid, request(0))
    assert grid.clock.now() == 1.0


@pytest.mark.parametrize("kind", ["train", "evaluate", "query", "train.warm_up"])
def test_a_message_that_names_no_steps_takes_the_fleets_default(kind):
    grid = grid_of(Equal(num_nodes=1, seconds_per_step=2.0, default_steps=7))
    ask(grid, request(0, kind))
    assert grid.clock.now() == 14.0


@pytest.mark.parametrize("kind", ["lognormal", "half_normal", "shifted_exponential"])
def test_jitter_varies_from_job_to_job_and_repeats_with_the_seed(kind):
    def durations(seed: int) -> list[float]:
        grid = grid_of(Equal(num_nodes=1, jitter=0.5, jitter_kind=kind, seed=seed))
        times = [0.0]
        for _ in range(20):
            ask(grid, request(0))
            times.append(grid.clock.now())
        return np.diff(times).tolist()

    assert len(set(durations(1))) == 20
    assert durations(1) == durations(1) != durations(2)
    if kind == "lognormal":
        assert np.log(durations(1)).std() == pytest.approx(0.5, rel=0.5)


# --- order ----------------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_virtual_time():
    grid = grid_of(fleet_of(3.0, 1.0, 2.0))
    ids = grid.push_messages([request(n) for n in range(3)])
    assert arrivals(grid, ids) == [(1.0, 1), (2.0, 2), (3.0, 0)]


def test_replies_of_the_same_moment_come_in_the_order_of_dispatch():
    grid = grid_of(Equal(num_nodes=5))
    order = [3, 0, 4, 1, 2]
    assert [node_of(r) for r in ask(grid, *map(request, order))] == order


def test_ties_between_jobs_of_different_length_go_by_dispatch_too():
    grid = grid_of(fleet_of(4.0, 1.0, 2.0))
    ids = grid.push_messages([request(n) for n in (2, 1, 1, 1, 1, 0, 2)])
    assert arrivals(grid, ids)[-3:] == [(4.0, 1), (4.0, 0), (4.0, 2)]


def test_a_node_does_one_job_after_the_other_and_remembers_the_first():
    grid = grid_of(fleet_of(2.0, 5.0), count)
    first, second, other = grid.push_messages([request(0), request(0), request(1)])
    asked = {}
    for message_id in (second, first, other):
        [reply] = grid.pull_messages([message_id])
        asked[message_id] = (grid.clock.now(), reply.content["metrics"]["asked"])
    assert asked == {second: (4.0, 2), first: (4.0, 1), other: (5.0, 1)}


def test_work_pushed_while_a_node_is_busy_starts_when_it_is_free():
    grid = grid_of(fleet_of(2.0, 0.5))
    ask(grid, request(1))
    [slow] = grid.push_messages([request(0)])
    ask(grid, request(1))
    [queued] = grid.push_messages([request(0)])
    assert grid.clock.now() == 1.0
    assert arrivals(grid, [slow, queued]) == [(2.5, 0), (4.5, 0)]


JOBS = st.lists(
    st.tuples(
        st.integers(0, 2),  # node
        st.integers(1, 4),  # steps
        st.integers(0, 3),  # seconds until the next job is sent
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(JOBS, st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3))
def test_the_grid_is_a_first_come_first_served_queue_per_node(jobs, seconds):
    grid = grid_of(fleet_of(*seconds), lambda message, context: metrics())
    free_at, expected, ids, seen = [0.0] * 3, {}, [], []
    for number, (node, steps, pause_s) in enumerate(jobs):
        sent_at = grid.clock.now()
        free_at[node] = max(free_at[node], sent_at) + steps * seconds[node]
        expected[number] = (free_at[node], number, node)
        ids += grid.push_messages([request(node, **{"local-steps": steps})])
        grid.clock.wake_at(sent_at + pause_s)
        while grid.clock.now() < sent_at + pause_s:
            seen += [(grid.clock.now(), node_of(r)) for r in grid.pull_messages(ids)]
            if not grid.statistics.in_flight:
                grid.clock.pause()
    grid.clock.wake_at(math.inf)
    seen += arrivals(grid, ids)
    assert seen == [(time_s, node) for time_s, _, node in sorted(expected.values())]


# --- waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wake_at_s", [0.0, 3.0, 9.999])
def test_a_pull_never_goes_past_the_announced_time(wake_at_s):
    grid = grid_of(fleet_of(10.0))
    ids = grid.push_messages([request(0)])
    grid.clock.wake_at(wake_at_s)
    assert list(grid.pull_messages(ids)) == []
    assert grid.clock.now() == wake_at_s
    grid.clock.wake_at(10.0)
    assert len(list(grid.pull_messages(ids))) == 1
    assert grid.clock.now() == 10.0


def test_a_pull_returns_what_has_come_and_lets_no_time_pass():
    grid = grid_of(fleet_of(1.0, 2.0, 9.0))
    ids = list(grid.push_messages([request(n) for n in range(3)]))
    list(grid.pull_messages([ids[1]]))
    assert [node_of(r) for r in grid.pull_messages(ids)] == [0]
    assert grid.clock.now() == 2.0


def test_a_reply_is_pulled_once():
    grid = grid_of(fleet_of(1.0))
    ids = grid.push_messages([request(0)])
    assert len(list(grid.pull_messages(ids))) == 1
    assert list(grid.pull_messages(ids)) == []


def test_a_pull_for_nothing_lets_no_time_pass():
    grid = grid_of(fleet_of(1.0))
    grid.push_messages([request(0)])
    assert list(grid.pull_messages([])) == []
    assert grid.clock.now() == 0.0


def test_a_timeout_in_virtual_seconds_returns_what_came_in_time():
    grid = grid_of(fleet_of(1.0, 5.0, 5.5))
    replies = ask(grid, *map(request, range(3)), timeout=5.0)
    assert [node_of(r) for r in replies] == [0, 1]
    assert grid.clock.now() == 5.0


def test_a_timeout_counts_from_now():
    grid = grid_of(fleet_of(1.0, 5.0))
    ask(grid, request(0))
    replies = ask(grid, *map(request, range(2)), timeout=3.0)
    assert [node_of(r) for r in replies] == [0]
    assert grid.clock.now() == 4.0


def test_a_timeout_that_everybody_meets_costs_no_time():
    grid = grid_of(fleet_of(1.0, 2.0))
    assert len(ask(grid, request(0), request(1), timeout=100.0)) == 2
    assert grid.clock.now() == 2.0


@pytest.mark.parametrize("timeout", [None, 3.0, 100.0])
def test_after_a_timeout_others_may_wait_as_long_as_they_like(timeout):
    grid = grid_of(fleet_of(5.0))
    ask(grid, request(0), timeout=timeout)
    began_s = grid.clock.now()
    ids = grid.push_messages([request(0)])
    assert len(list(grid.pull_messages(ids))) == 1
    assert grid.clock.now() == (10.0 if timeout == 3.0 else began_s + 5.0)


def test_a_reply_that_missed_its_timeout_can_still_be_pulled():
    grid = grid_of(fleet_of(5.0))
    late = request(0)
    assert ask(grid, late, timeout=3.0) == []
    assert arrivals(grid, [late.metadata.message_id]) == [(5.0, 0)]


# --- nodes ----------------------------------------------------------------------------------------


def test_the_id_of_an_unknown_node_is_left_out():
    grid = grid_of(Equal(num_nodes=2))
    ids = list(grid.push_messages([request(-1), request(0), request(2), request(1)]))
    assert len(ids) == 2
    assert [node for _, node in arrivals(grid, ids)] == [0, 1]
    assert ask(grid, request(7)) == []


def test_partitions_are_numbered_from_zero():
    grid = grid_of(
        Equal(num_nodes=3), lambda message, context: metrics(**_identifiers(context.node_config))
    )
    replies = ask(grid, *map(request, range(3)))
    assert [r.content["metrics"]["partition"] for r in replies] == [0, 1, 2]
    assert {r.content["metrics"]["partitions"] for r in replies} == {3}
    assert [r.metadata.src_node_id for r in replies] == list(grid.get_node_ids())


def _identifiers(node_config):
    return {
        "partition": node_config["partition-id"],
        "partitions": node_config["num-partitions"],
    }


def test_a_million_nodes_cost_no_more_than_those_that_work():
    grid = grid_of(Equal(num_nodes=1_000_000))
    before = time.perf_counter()
    ask(grid, *[request(n) for n in range(0, 1_000_000, 100_000)])
    assert time.perf_counter() - before < 1.0
    assert len(list(grid.get_node_ids())) == 1_000_000
    assert grid.statistics.num_updates == 10


def test_only_nodes_with_something_to_remember_are_kept():
    for answer, kept in ((echo, 0), (count, 3)):
        grid = grid_of(Equal(num_nodes=1_000_000, links=Links(1.0, 100.0, 10.0)), answer)
        ask(grid, *map(request, (7, 70_000, 999_999)))
        assert len(grid._engine.nodes._kept) == kept


def test_a_node_that_was_let_go_goes_on_where_it_was():
    fleet = Equal(num_nodes=2, jitter=0.5, links=Links(1.0, 100.0, 10.0))

    def times(*pauses_s: float) -> list[float]:
        grid, ids, seen = grid_of(fleet), [], []
        for pause_s in pauses_s:
            began_s = grid.clock.now()
            ids = grid.push_messages([request(0)])
            seen += [time_s - began_s for time_s, _ in arrivals(grid, ids)]
            grid.clock.advance_to(grid.clock.now() + pause_s)
        return seen

    assert times(0.0, 0.0, 0.0) == pytest.approx(times(50.0, 50.0, 50.0))


def test_every_job_of_every_node_draws_its_own_numbers_and_repeats_them_with_the_seed():
    def drawn(seed: int) -> list[float]:
        grid = grid_of(Equal(num_nodes=4), draw, seed=seed)
        replies = ask(grid, *[request(n) for n in (0, 1, 2, 3, 0, 1)])
        return [r.content["metrics"]["c"] for r in replies]

    assert len(set(drawn(1))) == 6
    assert drawn(1) == drawn(1)
    assert not set(drawn(1)) & set(drawn(2))


def test_it_is_a_flower_grid_with_flowers_other_duties():
    grid = grid_of(Equal(num_nodes=1))
    grid.set_run(empty_run(9))
    assert grid.run.run_id == 9
    message = grid.create_message(request(0).content, "train", 1001, "round-1", ttl=60.0)
    assert (message.metadata.group_id, message.metadata.ttl) == ("round-1", 60.0)
    [reply] = ask(grid, message)
    assert reply.metadata.group_id == "round-1"
    assert reply.metadata.reply_to_message_id == message.metadata.message_id != ""


# --- failures -------------------------------------------------------------------------------------

OFFLINE = {"period_s": 10.0, "online_fraction": 0.5}
"""Online from 0 to 5, 10 to 15, ..."""


def test_an_offline_node_answers_at_once_that_it_is_unavailable():
    grid = grid_of(fleet_of(1.0, profiles={0: {**OFFLINE, "phase_s": 5.0}}))
    [reply] = ask(grid, request(0))
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
    assert grid.clock.now() == 0.0
    assert list(grid.get_node_ids()) == []


def test_a_node_that_leaves_in_the_middle_of_a_job_fails_when_it_leaves():
    grid = grid_of(fleet_of(6.0, profiles={0: OFFLINE}))
    [reply] = ask(grid, request(0))
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
    assert grid.clock.now() == 5.0


def test_a_node_that_leaves_in_the_middle_of_its_upload_fails_when_it_leaves():
    profiles = {0: {**OFFLINE, "upload_bytes_per_s": PAYLOAD_BYTES / 2}}
    grid = grid_of(fleet_of(4.0, profiles=profiles))
    [reply] = ask(grid, request(0))
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
    assert grid.clock.now() == 5.0
    assert grid.statistics.bytes_up == 0


@pytest.mark.parametrize("seconds", [3.0, 5.0])
def test_a_job_that_is_done_before_its_node_leaves_is_delivered(seconds):
    grid = grid_of(fleet_of(seconds, profiles={0: OFFLINE}))
    [reply] = ask(grid, request(0))
    assert reply.has_content()
    assert grid.clock.now() == seconds


def test_what_waits_at_a_node_that_leaves_fails_with_it():
    grid = grid_of(fleet_of(4.0, profiles={0: OFFLINE}), count)
    replies = ask(grid, request(0), request(0), request(0))
    assert [r.has_error() for r in replies] == [False, True, True]
    assert grid.clock.now() == 5.0


def test_a_job_that_dies_answers_that_the_client_app_crashed_before_it_would_be_done():
    grid = grid_of(fleet_of(8.0, profiles={0: {"failure_rate": 1.0}}))
    times = []
    for _ in range(10):
        began_s = grid.clock.now()
        [reply] = ask(grid, request(0))
        assert reply.error.code == ErrorCode.CLIENT_APP_CRASHED
        times.append(grid.clock.now() - began_s)
    assert all(0 < t < 8.0 for t in times)
    assert len(set(times)) == 10


@pytest.mark.parametrize(
    ("rate", "outcome"), [("failure_rate", Outcome.FAILED), ("silence_rate", Outcome.EXPIRED)]
)
def test_jobs_fail_as_often_as_the_profile_says(rate, outcome):
    grid = grid_of(Equal(num_nodes=400, reliability=Reliability(**{rate: 0.25})))
    ask(grid, *map(request, range(400)))
    bad = sum(n for (o, _), n in grid.statistics.outcomes.items() if o is outcome)
    assert bad == pytest.approx(100, abs=30)
    assert grid.statistics.num_updates == 400 - bad


def test_silence_never_replies_but_frees_the_node():
    grid = grid_of(fleet_of(3.0, 4.0, profiles={0: {"silence_rate": 1.0}}))
    replies = ask(grid, request(0), request(0), request(1), timeout=100.0)
    assert [node_of(r) for r in replies] == [1]
    assert grid.statistics.outcomes["expired", "silent"] == 2
    assert grid.statistics.busy_s == 4.0 + 3.0 + 3.0
    assert grid.statistics.now_s == 6.0, "the second silent job ran after the first"


@pytest.mark.parametrize("ttl", [3.0, 10.0])
def test_the_grid_answers_for_a_silent_node_when_the_ttl_is_over(ttl):
    grid = grid_of(fleet_of(3.0, profiles={0: {"silence_rate": 1.0}}))
    message = request(0)
    message.metadata.ttl = ttl
    [reply] = ask(grid, message)
    assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert grid.clock.now() == ttl
    assert grid.statistics.outcomes == Counter({("expired", "silent"): 1})


def test_silence_makes_a_caller_wait_for_its_whole_timeout():
    grid = grid_of(fleet_of(3.0, profiles={0: {"silence_rate": 1.0}}))
    assert ask(grid, request(0), timeout=20.0) == []
    assert grid.clock.now() == 20.0


def test_a_client_app_that_raises_takes_its_time_and_answers_with_its_message():
    def answer(message, context):
        raise ValueError("broken sensor")

    grid = grid_of(fleet_of(3.0), answer)
    [reply] = ask(grid, request(0))
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "broken sensor" in reply.error.reason
    assert grid.clock.now() == 3.0


@settings(max_examples=40, deadline=None)
@given(
    nodes=st.lists(st.integers(0, 9), max_size=25),
    reliability=st.builds(
        Reliability,
        failure_rate=st.sampled_from([0.0, 0.3]),
        silence_rate=st.sampled_from([0.0, 0.3]),
        period_s=st.sampled_from([math.inf, 4.0]),
        online_fraction=st.sampled_from([0.5, 1.0]),
    ),
    jitter=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 5),
)
def test_every_job_ends_exactly_once(nodes, reliability, jitter, seed):
    links = Links(0.1, 1000.0, 100.0)
    fleet = Equal(num_nodes=10, jitter=jitter, links=links, reliability=reliability, seed=seed)
    grid = grid_of(fleet)
    ids = list(grid.push_messages(map(request, nodes)))
    replies, times = [], []
    while arrived := list(grid.pull_messages(ids)):
        replies += arrived
        times.append(grid.clock.now())
    outcomes = grid.statistics.outcomes
    assert len(set(ids)) == len(nodes) == outcomes.total()
    assert len({r.metadata.reply_to_message_id for r in replies}) == len(replies)
    codes = Counter(r.error.code if r.has_error() else 0 for r in replies)
    assert len(replies) == outcomes.total()
    assert outcomes["applied", ""] == codes[0]
    assert outcomes["expired", "silent"] == codes[ErrorCode.MESSAGE_UNAVAILABLE]
    assert outcomes["failed", "client-app-crashed"] == codes[ErrorCode.CLIENT_APP_CRASHED]
    assert outcomes["failed", "node-unavailable"] == codes[ErrorCode.NODE_UNAVAILABLE]
    assert grid.statistics.in_flight == 0
    assert times == sorted(set(times))


# --- statistics -----------------------------------------------------------------------------------


def test_statistics_count_bytes_outcomes_and_busy_seconds():
    grid = grid_of(fleet_of(2.0, 3.0, 4.0, profiles={2: {"silence_rate": 1.0}}))
    ask(grid, request(0), request(1), request(2), request(0, "evaluate"), timeout=4.0)
    seen = grid.statistics
    assert seen.is_virtual
    assert seen.bytes_down == 4 * PAYLOAD_BYTES
    assert seen.bytes_up == 3 * PAYLOAD_BYTES
    assert seen.outcomes == Counter({("applied", ""): 2, ("expired", "silent"): 1})
    assert seen.evaluation_outcomes == Counter({("applied", ""): 1})
    assert seen.num_updates == 2
    assert seen.busy_s == 2.0 + 3.0 + 4.0
    assert seen.now_s == grid.clock.now() == 4.0
    assert seen.concurrency == 3
    assert seen.utilisation == 9.0 / 12.0


def test_statistics_name_the_error_and_count_no_bytes_for_it():
    profiles = {0: {"failure_rate": 1.0}, 1: {**OFFLINE, "phase_s": 5.0}}
    grid = grid_of(fleet_of(1.0, 1.0, profiles=profiles))
    ask(grid, request(0), request(1))
    assert grid.statistics.outcomes == Counter(
        {("failed", "client-app-crashed"): 1, ("failed", "node-unavailable"): 1}
    )
    assert grid.statistics.bytes_up == 0
    assert grid.statistics.num_updates == 0


def test_work_in_flight_is_counted_as_such():
    grid = grid_of(fleet_of(1.0, 9.0))
    ids = list(grid.push_messages([request(0), request(1)]))
    list(grid.pull_messages([ids[0]]))
    assert (grid.statistics.in_flight, grid.statistics.num_dispatches) == (1, 2)


def test_what_misses_a_timeout_expires_and_counts_as_late_when_it_comes():
    grid = grid_of(fleet_of(1.0, 5.0))
    ask(grid, request(0), request(1), timeout=3.0)
    seen = grid.statistics
    assert seen.outcomes == Counter({("applied", ""): 1, ("expired", "deadline"): 1})
    assert (seen.in_flight, seen.busy_s, seen.bytes_up) == (0, 1.0 + 3.0, PAYLOAD_BYTES)
    ask(grid, request(0), request(1), timeout=1.0)
    ask(grid, request(0), timeout=None)
    assert seen.unsolicited == Counter({"late": 1})
    assert seen.bytes_up == 4 * PAYLOAD_BYTES
    assert seen.num_updates == 3
    assert seen.busy_s == 3 * 1.0 + 3.0, "the second job of the slow node had not begun"
    assert seen.at_work_max == 2


# --- stock strategies -----------------------------------------------------------------------------

STRATEGIES = {
    "FedAvg": FedAvg,
    "FedAdam": FedAdam,
    "Krum": lambda **kwargs: Krum(num_malicious_nodes=1, **kwargs),
}


def learn(message, context):
    """Move every weight by one, whatever the node."""
    value = message.content["arrays"]["w"].numpy() + 1
    return RecordDict({"arrays": arrays(*value.tolist()), **metrics()})


@pytest.mark.parametrize("name", STRATEGIES)
def test_stock_strategies_run_and_a_straggler_sets_the_pace(name):
    grid = grid_of(fleet_of(1.0, 1.0, 1.0, 1.0, 10.0), learn)
    strategy = STRATEGIES[name](fraction_evaluate=0.0)
    result = strategy.start(grid, arrays(0.0, 0.0), num_rounds=5)
    assert grid.clock.now() == 50.0
    assert grid.statistics.outcomes == Counter({("applied", ""): 25})
    trained = result.arrays["w"].numpy()
    if name == "FedAdam":
        assert (trained > 0).all()
    else:
        assert trained.tolist() == [5.0, 5.0]


def test_a_stock_strategy_evaluates_on_its_clients():
    grid = grid_of(fleet_of(1.0, 3.0), learn)
    result = FedAvg().start(grid, arrays(0.0), num_rounds=2, evaluate_config=ConfigRecord())
    assert grid.clock.now() == 2 * (3.0 + 3.0)
    assert grid.statistics.evaluation_outcomes == Counter({("applied", ""): 4})
    assert set(result.evaluate_metrics_clientapp) == {1, 2}


def test_a_stock_strategy_goes_on_without_those_that_miss_its_timeout():
    grid = grid_of(fleet_of(1.0, 1.0, 100.0), learn)
    result = FedAvg(fraction_evaluate=0.0).start(grid, arrays(0.0), num_rounds=3, timeout=10.0)
    assert grid.clock.now() == 30.0
    assert result.arrays["w"].numpy().tolist() == [3.0]


@pytest.fixture
def looks(monkeypatch):
    """Flower's waits between two looks at the list of nodes, without the waiting."""
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        assert len(waits) < 1000, "it waits for ever"

    monkeypatch.setattr(strategy_utils, "sleep", sleep)
    return waits


@pytest.mark.parametrize("num_rounds", [1, 6])
def test_a_stock_strategy_that_waits_for_nodes_gets_on(looks, num_rounds):
    evening = {"period_s": 20.0, "online_fraction": 0.5, "phase_s": 10.0}  # from 10 to 20, ...
    grid = grid_of(fleet_of(1.0, 1.0, 2.0, profiles={2: evening}), learn)
    strategy = FedAvg(min_train_nodes=3, min_available_nodes=3, fraction_evaluate=0.0)
    result = strategy.start(grid, arrays(0.0), num_rounds=num_rounds)
    assert looks, "nothing was waited for"
    assert result.arrays["w"].numpy().tolist() == [float(num_rounds)]
    # Five rounds of two seconds fit between 10 and 20; the sixth waits for the next evening.
    assert grid.clock.now() == {1: 12.0, 6: 32.0}[num_rounds]


def test_looking_for_nodes_between_other_things_takes_no_time():
    grid = grid_of(fleet_of(50.0, 1.0, profiles={1: {**OFFLINE, "phase_s": 5.0}}))
    for _ in range(5):
        grid.push_messages([request(0)])
        for _ in range(3):
            assert list(grid.get_node_ids()) == [1001]
    for _ in range(5):
        list(grid.pull_messages([]))
        for _ in range(3):
            assert list(grid.get_node_ids()) == [1001]
    assert grid.clock.now() == 0.0


def test_work_goes_on_while_somebody_looks_for_nodes():
    grid = grid_of(fleet_of(2.0, 1.0, profiles={1: {**OFFLINE, "phase_s": 5.0}}), count)
    ids = list(grid.push_messages([request(0), request(0), request(0)]))
    for _ in range(4):
        online = list(grid.get_node_ids())
    assert (online, grid.clock.now()) == ([1001, 1002], 5.0)
    assert [r.content["metrics"]["asked"] for r in grid.pull_messages(ids)] == [1, 2]
    assert grid.clock.now() == 5.0


def test_looking_for_nodes_does_not_go_past_the_announced_time():
    grid = grid_of(fleet_of(1.0, 1.0, profiles={1: {**OFFLINE, "phase_s": 5.0}}))
    grid.clock.wake_at(2.0)
    for _ in range(10):
        list(grid.get_node_ids())
    assert grid.clock.now() == 2.0


def test_looking_for_nodes_that_never_leave_takes_no_time():
    grid = grid_of(Equal(num_nodes=2, reliability=Reliability(period_s=10.0, online_fraction=1.0)))
    for _ in range(10):
        assert list(grid.get_node_ids()) == [1001, 1002]
    assert grid.clock.now() == 0.0


def test_the_next_coming_or_going_may_be_any_nodes(looks):
    profiles = {
        0: {"period_s": 100.0, "online_fraction": 0.5, "phase_s": 60.0},  # back at 40
        1: {"period_s": 100.0, "online_fraction": 0.5, "phase_s": 70.0},  # back at 30
    }
    grid = grid_of(fleet_of(1.0, 1.0, profiles=profiles))
    seen = {}
    for _ in range(12):
        online = tuple(grid.get_node_ids())
        seen.setdefault(online, grid.clock.now())
    assert seen[()] == 0.0
    assert seen[(1002,)] == 30.0
    assert seen[(1001, 1002)] == 40.0
