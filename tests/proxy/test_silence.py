"""A run in which nobody answers ends when its timeout is over, and says so before."""

import logging

import pytest

from fedagent import FedAsync, FedBuff
from fedagent.proxy.silence import Silence
from fedagent.simulation import Equal, Reliability, Scripted
from fedagent.stopping import MaxUpdates
from tests.toy import Log, run

SILENT = Reliability(silence_rate=1.0)


@pytest.mark.parametrize("num_nodes", [2, 8, 200])
@pytest.mark.parametrize(
    "options",
    [{}, {"concurrency": 2}, {"prefetch": 2}, {"deadline_s": 20.0}, {"deadline_s": 149.0}],
    ids=str,
)
def test_a_fleet_that_is_silent_from_the_beginning_ends_the_run(num_nodes, options, caplog):
    log = Log()
    strategy = FedBuff(fraction_evaluate=0.0, callbacks=[log], **options)
    with caplog.at_level(logging.WARNING, "flwr"):
        run(strategy, Equal(num_nodes=num_nodes, reliability=SILENT), timeout=300.0)
    assert log.end.kind == "stalled"
    assert log.statistics.now_s == 300.0
    (warning,) = [r.getMessage() for r in caplog.records if "No reply for" in r.getMessage()]
    assert "150 s" in warning
    assert "after 300 s" in warning


def test_a_fleet_that_falls_silent_ends_the_run_a_timeout_after_the_last_reply():
    log = Log()
    fleet = Scripted(num_nodes=3, times=(1.0, 2.0, 1e9))

    class FallsSilent(FedAsync):
        def configure_train(self, *arguments):
            messages = list(super().configure_train(*arguments))
            return messages if self.proxy.statistics.now_s < 10.0 else []

    strategy = FallsSilent(fraction_evaluate=0.0, callbacks=[log])
    run(strategy, fleet, rounds=1000, timeout=50.0)
    assert log.end.kind == "stalled"
    assert 59.0 <= log.statistics.now_s <= 62.0


def test_slow_nodes_that_answer_in_time_end_nothing():
    log = Log()
    strategy = FedAsync(concurrency=1, fraction_evaluate=0.0, callbacks=[log])
    run(strategy, Scripted(num_nodes=2, times=(90.0, 90.0)), rounds=5, timeout=100.0)
    assert log.reason == "5 rounds"


def test_every_silence_is_warned_of_once(caplog):
    silence = Silence(100.0)
    with caplog.at_level(logging.WARNING, "flwr"):
        for now_s in (10.0, 49.0, 50.0, 60.0):
            silence.warn_if_due(now_s, 3)
        assert len(caplog.records) == 1
        silence.heard(60.0)
        silence.warn_if_due(100.0, 3)
        assert len(caplog.records) == 1
        silence.warn_if_due(110.0, 3)
        assert len(caplog.records) == 2


def test_failures_are_replies_but_do_not_keep_an_idle_run_alive():
    silence = Silence(100.0)
    silence.succeeded(0.0)
    silence.heard(90.0)
    assert silence.over(150.0, is_idle=False) is None
    assert silence.over(150.0, is_idle=True) == 150.0
    assert silence.over(190.0, is_idle=False) == 100.0


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_is_over_waits_no_longer_than_the_timeout_for_silent_evaluators(seed):
    log = Log()
    strategy = FedBuff(
        fraction_train=0.5,
        fraction_evaluate=0.5,
        callbacks=[log],
        stopping=[MaxUpdates(10)],
    )
    fleet = Equal(num_nodes=10, reliability=Reliability(silence_rate=0.3), seed=seed)
    run(strategy, fleet, rounds=1000, timeout=300.0)
    assert log.end.is_complete
    unheard = {reason for outcome, reason in log.statistics.evaluation_outcomes if reason}
    assert unheard & {"deadline", "run-ended"}
