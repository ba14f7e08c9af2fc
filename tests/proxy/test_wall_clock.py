"""The same proxy in real time, on a grid that is nothing but threads."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch
from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedagent import FedAsync
from fedagent._flower import DRIVER_NODE_ID, empty_run, identify_process, set_message_id
from fedagent.stopping import MaxSeconds, MaxUpdates
from tests.toy import Log, client_app, model


class ThreadGrid(Grid):
    """Runs a ClientApp for `num_nodes` nodes in threads; a job takes `seconds`."""

    def __init__(self, num_nodes, seconds):
        identify_process(run_id=1, node_id=DRIVER_NODE_ID, task_id=1)
        self._ids = [100 + i for i in range(num_nodes)]
        self._app, self._seconds = client_app(), seconds
        self._pool = ThreadPoolExecutor(num_nodes)
        self._numbers = itertools.count()
        self._futures = {}
        self._lock = threading.Lock()  # the toy app seeds and steps with torch's global generator

    def set_run(self, run):
        raise AssertionError("not used")

    @property
    def run(self):
        return empty_run(1)

    def create_message(self, *args, **kwargs):
        raise AssertionError("deprecated by Flower")

    def get_node_ids(self):
        return list(self._ids)

    def push_messages(self, messages):
        ids = []
        for message in messages:
            ids.append(f"m{next(self._numbers)}")
            set_message_id(message, ids[-1])
            self._futures[ids[-1]] = self._pool.submit(self._work, message)
        return ids

    def pull_messages(self, message_ids):
        done = [i for i in message_ids if self._futures[i].done()]
        return [self._futures[i].result() for i in done]

    def finish(self):
        """Wait until every job is done, however long the first one of a process takes."""
        wait(self._futures.values())

    def send_and_receive(self, messages, *, timeout=None):
        raise AssertionError("an asynchronous strategy never waits for a batch")

    def _work(self, message):
        time.sleep(self._seconds)
        node = message.metadata.dst_node_id
        context = Context(1, node, {"partition-id": node - 100}, RecordDict(), {})
        with self._lock:
            return self._app(message, context)


def _start(strategy, grid, **arguments):
    return strategy.start(grid, ArrayRecord(model().state_dict()), **arguments)


def test_a_slow_evaluate_fn_does_not_stall_dispatch():
    released, log = threading.Event(), Log()

    def evaluate(server_round, arrays):
        if server_round == 1:
            assert released.wait(timeout=30)
        return MetricRecord({"server_round": server_round})

    class Release(Log):
        def on_version(self, statistics):
            if statistics.server_round == 6:  # reached only if round 1's evaluation stalls nobody
                released.set()

    strategy = FedAsync(callbacks=[log, Release()], fraction_evaluate=0.0)
    result = _start(strategy, ThreadGrid(2, 0.01), num_rounds=8, evaluate_fn=evaluate)
    assert released.is_set()
    evaluated = [m["server_round"] for m in result.evaluate_metrics_serverapp.values()]
    assert evaluated == sorted(evaluated)
    assert {0, 1, 8} <= set(evaluated), "the last round is always evaluated"
    assert 4 not in evaluated, "the newest round waits, not a queue of old ones"
    assert log.statistics.is_virtual is False


def test_an_error_in_evaluate_fn_reaches_the_caller():
    def evaluate(version, arrays):
        raise ZeroDivisionError("no test data")

    strategy = FedAsync(fraction_evaluate=0.0)
    with pytest.raises(ZeroDivisionError, match="no test data"):
        _start(strategy, ThreadGrid(2, 0.01), num_rounds=3, evaluate_fn=evaluate)


def test_deadlines_are_real_seconds_on_a_real_grid():
    log = Log()
    strategy = FedAsync(
        callbacks=[log], stopping=[MaxSeconds(1.0)], fraction_evaluate=0.0, deadline_s=0.6
    )
    _start(strategy, ThreadGrid(2, 3.0), num_rounds=3, timeout=60.0)
    assert log.statistics.by_outcome() == {"expired(deadline)": 2}
    assert 1.0 <= log.statistics.now_s < 3.0


def test_a_silent_fleet_ends_a_real_run_after_its_timeout_whatever_the_number_of_nodes():
    log = Log()
    strategy = FedAsync(concurrency=2, callbacks=[log], fraction_evaluate=0.0, deadline_s=0.2)
    _start(strategy, ThreadGrid(20, 3.0), num_rounds=3, timeout=0.8)
    assert log.end.kind == "stalled"
    assert 0.8 <= log.statistics.now_s < 3.0


def test_learns_in_real_time():
    strategy = FedAsync(fraction_evaluate=0.0, alpha=0.5)
    torch.manual_seed(0)
    result = _start(strategy, ThreadGrid(4, 0.001), num_rounds=40)
    losses = [m["loss"] for _, m in sorted(result.train_metrics_clientapp.items())]
    assert sum(losses[-20:]) < 0.2 * sum(losses[:20])


class DyingGrid(ThreadGrid):
    """Raises what Flower does where a SuperLink dies in the middle of every third message."""

    num_pushed = 0

    def push_messages(self, messages):
        self.num_pushed += 1
        if self.num_pushed % 3 == 0:
            raise RuntimeError("the push session may have expired")
        return super().push_messages(messages)


def test_a_superlink_that_dies_in_the_middle_of_a_message_costs_that_job_only(monkeypatch):
    monkeypatch.setattr("fedagent.proxy.dispatcher.pulls_over_network", lambda grid: True)
    log = Log()
    strategy = FedAsync(
        concurrency=4, callbacks=[log], fraction_evaluate=0.0, stopping=[MaxUpdates(8)]
    )
    _start(strategy, DyingGrid(4, 0.01), num_rounds=1_000)
    outcomes = strategy.proxy.statistics.by_outcome()
    assert outcomes["applied"] == 8
    assert outcomes["failed(not-sent)"] >= 1
    details = {s.detail for s in log.settlements if s.reason == "not-sent"}
    assert details == {"RuntimeError: the push session may have expired"}


def test_what_a_simulated_grid_raises_ends_the_run():
    strategy = FedAsync(concurrency=4, fraction_evaluate=0.0, stopping=[MaxUpdates(8)])
    with pytest.raises(RuntimeError, match="push session"):
        _start(strategy, DyingGrid(4, 0.01), num_rounds=1_000)


def test_the_grid_answers_for_a_node_after_twice_what_it_may_take_itself(monkeypatch):
    """A message that a SuperLink has lost holds its node up for so long, and not for the limit."""
    monkeypatch.setattr("fedagent.proxy.dispatcher.pulls_over_network", lambda grid: True)
    lives_s = []

    class Noting(ThreadGrid):
        def push_messages(self, messages):
            messages = list(messages)
            lives_s.extend(m.metadata.ttl for m in messages if m.metadata.message_type == "train")
            return super().push_messages(messages)

    strategy = FedAsync(concurrency=1, fraction_evaluate=0.0, stopping=[MaxUpdates(6)])
    _start(strategy, Noting(2, 0.01), num_rounds=1_000, timeout=300.0)
    assert lives_s[0] == 600, "while nothing is known"
    assert lives_s[-1] == 120, "twice the shortest deadline"
