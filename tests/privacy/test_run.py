"""Runs under `Private`: who works when, how they end, and what a killed run owes."""

import pytest
from flwr.app import MetricRecord

from benchmarks.reliability.local_grid import NODES, Counting, LocalGrid
from fedagent import AsyncStrategy
from fedagent.callbacks import Callback
from fedagent.journal import Checkpoints
from fedagent.privacy import Private, epsilon_of
from fedagent.rules import FedBuff
from fedagent.rules.staleness import constant
from fedagent.simulation import Lognormal, Reliability, Scripted
from fedagent.stopping import MaxUpdates
from fedagent.update import Kind, Outcome
from tests.toy import Log, run

FLEET = Scripted(num_nodes=6, times=(1.0, 1.0, 2.0, 3.0, 5.0, 8.0))


def private(buffer_size=3, **settings):
    given = {"noise_multiplier": 1.0, "staleness": constant, "seed": 1} | settings
    return Private(FedBuff(buffer_size=1), buffer_size, **given)


class Releases(Log):
    """The nodes in every release."""

    def __init__(self):
        super().__init__()
        self.releases, self._nodes = [], []

    def on_settled(self, statistics, settlement):
        super().on_settled(statistics, settlement)
        if settlement.dispatch.kind is Kind.TRAIN and settlement.outcome is Outcome.APPLIED:
            self._nodes.append(settlement.dispatch.node_id)

    def on_version(self, statistics):
        self.releases.append(self._nodes)
        self._nodes = []


def start(rule, rounds=6, **options):
    log = Releases()
    strategy = AsyncStrategy(rule, callbacks=[log], concurrency=6, **options)
    run(strategy, FLEET, rounds=rounds)
    return log, strategy


def test_a_node_is_in_a_release_once_and_none_is_refused():
    log, _ = start(private())
    assert len(log.releases) > 10
    assert all(len(set(nodes)) == len(nodes) for nodes in log.releases)
    assert log.statistics.by_outcome().keys() <= {"applied", "expired(run-ended)"}


def test_without_the_rule_fast_nodes_are_in_a_buffer_more_than_once():
    """The control: what the test above rules out does happen."""
    log = Releases()
    run(AsyncStrategy(FedBuff(buffer_size=3), callbacks=[log], concurrency=6), FLEET, rounds=6)
    assert any(len(set(nodes)) < len(nodes) for nodes in log.releases)


def test_budgets_end_a_run_and_no_node_exceeds_its_own():
    budget = epsilon_of(4**0.5, 1e-5)  # four releases
    rule = private(epsilon_budget=budget)
    log, _ = start(rule, rounds=1000)
    assert log.end.kind == "completed"
    assert "have spent epsilon_budget" in log.end.detail
    assert max(rule.accountant.nodes.values()) == pytest.approx(4.0)
    assert rule.accountant.epsilon() <= budget * (1 + 1e-9)
    fast = log.settlements[0].dispatch.node_id
    assert rule.accountant.spent(fast) == pytest.approx(4.0), "a fast node has spent it first"


def test_a_release_that_nobody_can_complete_is_a_stalled_run_that_says_so():
    log, _ = start(private(buffer_size=7), rounds=1000)
    assert log.end.kind == "stalled"
    assert "6 wait for a release of 7 updates" in log.end.detail


def test_a_release_waits_for_nodes_that_are_away():
    away = Reliability(period_s=200.0, online_fraction=0.3)
    fleet = Lognormal(num_nodes=12, seed=2, reliability=away)
    strategy = AsyncStrategy(private(5), concurrency=6, fraction_evaluate=0.0)
    done = run(strategy, fleet, rounds=20)
    assert done.result.end.kind == "completed", done.result.end
    assert strategy.proxy.statistics.version >= 10


class Joining(LocalGrid):
    """One more node is there from the tenth look on."""

    looks = 0

    def get_node_ids(self):
        self.looks += 1
        return super().get_node_ids()[: 3 if self.looks < 10 else 4]


@pytest.mark.parametrize("grid", [Joining, LocalGrid])
def test_on_a_real_fleet_a_release_waits_for_newcomers_as_long_as_for_an_answer(
    grid, tmp_path, caplog
):
    caplog.set_level("WARNING", "flwr")
    app, nodes = Counting(tmp_path, 50), NODES if grid is Joining else NODES[:3]
    options = {"membership_interval_s": 0.01, "fraction_evaluate": 0.0}
    strategy = AsyncStrategy(private(4), stopping=[MaxUpdates(12)], **options)
    result = strategy.start(grid(app, nodes), app.initial(), num_rounds=100, timeout=1)
    assert "3 wait for a release of 4 updates" in caplog.text
    assert result.end.kind == ("completed" if grid is Joining else "stalled")
    assert "3 wait for a release of 4" in str(result.end) or grid is Joining


def test_every_version_was_charged_for_when_a_run_is_killed_and_resumed(tmp_path):
    """What was published before the kill and after it is in the books, once."""

    class Killed(BaseException):
        pass

    class Kill(Callback):
        def on_settled(self, statistics, settlement):
            if statistics.num_updates == 20:
                raise Killed

    log = Releases()
    kept = Checkpoints(tmp_path, "updates", 7)
    with pytest.raises(Killed):
        run(
            AsyncStrategy(private(), callbacks=[log, Kill()], concurrency=6, checkpoint=kept),
            FLEET,
            rounds=1000,
        )
    published = len(log.releases)
    rule = private()
    log = Releases()
    again = Checkpoints(tmp_path, "updates", 7, resume=True)
    options = {"concurrency": 6, "stopping": [MaxUpdates(30)]}
    run(AsyncStrategy(rule, callbacks=[log], checkpoint=again, **options), FLEET, rounds=1000)
    assert published > 3
    assert sum(rule.accountant.nodes.values()) == pytest.approx(30.0)


def test_the_run_s_numbers_hold_the_guarantee():
    rule = private()
    log = Log()
    strategy = AsyncStrategy(rule, callbacks=[log], concurrency=6)
    run(strategy, FLEET, rounds=3, evaluate_fn=lambda v, a: MetricRecord({"loss": 0.0}))
    first, *_, last = [e for e in log.statistics.evaluations if e.source == "rule"]
    assert first.metrics["epsilon"] == 0.0
    assert last.metrics["epsilon"] == rule.accountant.epsilon() > 1.0
