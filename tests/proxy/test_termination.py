"""SIGTERM: no new work, what is in flight is taken in, the run ends and leaves its files."""

import json
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load_file

from fedagent import FedBuff
from fedagent.callbacks import Callback
from fedagent.proxy.termination import termination
from fedagent.report import Recorder, read_run
from fedagent.simulation import Lognormal
from fedagent.stopping import Metric, RunEnd
from fedagent.strategies.synchronous import Synchronous
from fedagent.wire.records import digest
from tests.toy import Log, run


def test_the_first_sigterm_is_noted_and_the_second_does_what_it_did_before():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("before"))
    try:
        with termination() as must_end:
            assert not must_end()
            os.kill(os.getpid(), signal.SIGTERM)
            assert must_end()
            assert heard == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == ["before"]
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ["before"] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def sleep_when_said(ready):
    ready.set()
    time.sleep(60)


def test_a_process_that_is_forked_meanwhile_ends_as_before():
    processes = multiprocessing.get_context("fork")
    ready = processes.Event()
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray leaves a handler of its own
    try:
        with termination() as must_end:
            child = processes.Process(target=sleep_when_said, args=(ready,))
            child.start()
            assert ready.wait(30)
            child.terminate()
            child.join(10)
            assert child.exitcode == -signal.SIGTERM
            assert not must_end()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("baseline", [False, True])
def test_a_simulation_that_gets_sigterm_stops_and_leaves_its_files(tmp_path, workers, baseline):
    class Signals(Callback):
        def on_version(self, statistics):
            if statistics.version == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    log = Log()
    callbacks = [Recorder(tmp_path, Metric(), None, {}), Signals(), log]
    if baseline:
        strategy = Synchronous(FedAvg(fraction_evaluate=0.0), callbacks=callbacks)
    else:
        strategy = FedBuff(buffer_size=2, concurrency=4, callbacks=callbacks)
    before = signal.getsignal(signal.SIGTERM)
    result = run(strategy, Lognormal(num_nodes=8), rounds=1_000, workers=workers).result
    assert result.end == log.end == RunEnd("stopped", "SIGTERM")
    assert log.statistics.version == 3
    assert log.statistics.in_flight == 0
    assert read_run(tmp_path).end == result.end
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["params_sha256"] == digest(result.arrays)
    assert set(load_file(tmp_path / "model.safetensors")) == set(result.arrays)
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_cannot_listen_and_does_not_fail():
    answers = []

    def listen():
        with termination() as must_end:
            answers.append(must_end())

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert answers == [False]


class SlowGrid:
    """Two nodes that answer after `delay_s` real seconds; SIGTERM comes with the first reply."""

    def __init__(self, delay_s):
        self.delay_s, self.sent, self.signalled_at = delay_s, {}, None
        self.num_sent_after = 0

    def get_node_ids(self):
        return [1, 2]

    def push_messages(self, messages):
        (message,) = messages
        message_id = f"m{len(self.sent)}"
        delay_s = 0.1 if not self.sent else self.delay_s
        self.sent[message_id] = (message, time.monotonic() + delay_s)
        self.num_sent_after += self.signalled_at is not None
        return [message_id]

    def pull_messages(self, message_ids):
        replies = []
        for message_id in list(message_ids):
            message, ready_s = self.sent.get(message_id, (None, 0.0))
            if message is None or time.monotonic() < ready_s:
                continue
            metrics = MetricRecord({"num-examples": 1})
            content = RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
            message.metadata.__dict__["_message_id"] = message_id
            replies.append(Message(content, reply_to=message))
            if self.signalled_at is None:
                self.signalled_at = time.monotonic()
                os.kill(os.getpid(), signal.SIGTERM)
        return replies


@pytest.mark.parametrize(
    ("delay_s", "drain_s", "applied"), [(0.6, 30.0, 2), (30.0, 0.5, 1), (30.0, 0.0, 1)]
)
def test_a_run_that_gets_sigterm_takes_in_what_comes_soon_and_ends(delay_s, drain_s, applied):
    grid, log = SlowGrid(delay_s), Log()
    before = signal.getsignal(signal.SIGTERM)
    strategy = FedBuff(buffer_size=1, callbacks=[log], fraction_evaluate=0.0, drain_s=drain_s)
    result = strategy.start(
        grid, ArrayRecord([np.zeros(3, np.float32)]), num_rounds=1_000, timeout=60.0
    )
    assert log.end == RunEnd("stopped", "SIGTERM")
    assert grid.num_sent_after <= 1, "what was sent with the reply that came before the signal"
    assert log.statistics.num_updates >= applied
    outcomes = [(s.outcome, s.reason) for s in log.settlements]
    assert len(outcomes) == len(grid.sent), "every dispatch has ended"
    assert (("expired", "run-ended") in outcomes) == (delay_s > 1)
    assert result.arrays is not None
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_sigterm_clients_that_do_not_evaluate_are_waited_for_no_longer_than_the_drain():
    class Deaf(SlowGrid):
        """Trains at once and never evaluates."""

        def pull_messages(self, message_ids):
            trained = [
                i
                for i in message_ids
                if i in self.sent and self.sent[i][0].metadata.message_type == "train"
            ]
            return super().pull_messages(trained)

    grid, log = Deaf(0.05), Log()
    strategy = FedBuff(buffer_size=1, callbacks=[log], fraction_evaluate=1.0, drain_s=1.0)
    begun = time.monotonic()
    strategy.start(grid, ArrayRecord([np.zeros(3, np.float32)]), num_rounds=1_000, timeout=60.0)
    assert time.monotonic() - begun < 10.0
    assert log.end == RunEnd("stopped", "SIGTERM")
    asked = [m for m, _ in grid.sent.values() if m.metadata.message_type == "evaluate"]
    assert asked, "the last version should have been evaluated"
    assert log.statistics.evaluation_outcomes["expired", "run-ended"] == len(asked)
