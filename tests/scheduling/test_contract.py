"""Every job that was given out ends in one call, however it ends; each scheduler hears of all."""

from collections import Counter

import pytest

from fedagent import AsyncStrategy, rules
from fedagent.scheduling import (
    Assignment,
    DyLU,
    FairnessCap,
    FedCompass,
    Observation,
    Paced,
    RoundRobin,
    Scheduler,
    Tiers,
    Uniform,
    Utility,
)
from fedagent.simulation import Lognormal, Reliability
from fedagent.stopping import MaxSeconds
from fedagent.update import Outcome, Rejection
from tests.scheduling.fleet import echo
from tests.toy import Log, run

SCHEDULERS = {
    "uniform": Uniform,
    "round robin": RoundRobin,
    "dylu": lambda: DyLU(5),
    "paced": lambda: Paced(max_steps=5),
    "fedcompass": lambda: FedCompass(1, 5),
    "tiers": lambda: Tiers(3, 2),
    "utility": Utility,
    "fair": lambda: FairnessCap(Uniform()),
    "fair fedcompass": lambda: FairnessCap(FedCompass(1, 5)),
}
UNRELIABLE = Reliability(failure_rate=0.15, silence_rate=0.1, period_s=40.0, online_fraction=0.7)


class Accountant(Scheduler):
    """Stands before a scheduler and keeps account of its jobs."""

    def __init__(self, inner: Scheduler) -> None:
        super().__init__()
        self.inner = inner
        self.open: Counter[int] = Counter()
        self.ends: Counter[str] = Counter()

    @property
    def allows_prefetch(self) -> bool:
        return self.inner.allows_prefetch

    def choose(self, idle):
        raise AssertionError("a wrapper assigns")

    def assign(self, idle, now_s):
        return self._given(self.inner.assign(idle, now_s))

    def plan(self, node_id, now_s):
        return self._given(self.inner.plan(node_id, now_s))

    def observe(self, observation: Observation) -> None:
        self._end(observation.node_id, "observed")
        self.inner.observe(observation)

    def lost(self, node_id: int) -> None:
        self._end(node_id, "lost")
        self.inner.lost(node_id)

    def next_due_s(self) -> float:
        return self.inner.next_due_s()

    def _given(self, job: Assignment | None) -> Assignment | None:
        if job is not None:
            self.open[job.node_id] += 1
        return job

    def _end(self, node_id: int, how: str) -> None:
        self.ends[how] += 1
        self.open[node_id] -= 1
        assert self.open[node_id] >= 0, f"node {node_id}: a job has ended twice"


class Choosy(AsyncStrategy):
    """Drops every seventh message and every fifth reply."""

    sent = received = 0

    def configure_train(self, *arguments):
        for message in super().configure_train(*arguments):
            self.sent += 1
            if self.sent % 7:
                yield message

    def aggregate_train(self, server_round, replies):
        self.received += 1
        return super().aggregate_train(server_round, list(replies) if self.received % 5 else [])


def account(scheduler: Scheduler, rule: rules.Rule, **options) -> tuple[Accountant, Log]:
    accountant, log = Accountant(scheduler), Log()
    strategy = Choosy(
        rule,
        scheduler=accountant,
        concurrency=5,
        deadline_s=12.0,
        stopping=[MaxSeconds(400.0)],
        callbacks=[log],
        fraction_evaluate=0.0,
        **options,
    )
    fleet = Lognormal(num_nodes=12, reliability=UNRELIABLE, sigma=1.0)
    run(strategy, fleet, rounds=100_000, client=echo())
    return accountant, log


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("prefetch", [0, 1])
def test_each_job_ends_once_for_its_scheduler_whatever_happens_to_it(name, prefetch):
    scheduler = SCHEDULERS[name]()
    if not scheduler.allows_prefetch:
        prefetch = 0
    # Ringmaster finds many updates too stale.
    accountant, log = account(scheduler, rules.Ringmaster(1), prefetch=prefetch)
    outcomes = Counter(s.outcome for s in log.settlements)
    reasons = Counter(s.reason for s in log.settlements)
    for expected in ("too-stale", "deadline", "dropped-by-strategy", "client-app-crashed"):
        assert reasons[expected], f"nothing of the kind happened: {reasons}"
    assert +accountant.open == Counter()
    assert accountant.ends["observed"] == outcomes["applied"] + reasons["too-stale"]
    assert accountant.ends.total() > outcomes.total(), "messages that were never sent too"


class Fussy(rules.FedBuff):
    """Has no use for the updates of every other node, however fresh they are."""

    def rejection(self, update):
        odd = update.node_id % 2
        return Rejection(Outcome.REJECTED, "odd-node", "odd nodes are refused") if odd else None


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_job_whose_update_the_rule_refuses_for_its_own_reasons_ends_once_too(name):
    accountant, log = account(SCHEDULERS[name](), Fussy(3))
    outcomes = Counter(s.outcome for s in log.settlements)
    refused = Counter(s.reason for s in log.settlements)["odd-node"]
    assert refused
    assert +accountant.open == Counter()
    assert accountant.ends["observed"] == outcomes["applied"] + refused


@pytest.mark.parametrize(
    ("scheduler", "allows"),
    [
        (Uniform(), True),
        (RoundRobin(), True),
        (DyLU(), True),
        (Utility(), True),
        (FedCompass(), False),
        (Tiers(), False),
        (FairnessCap(Uniform()), True),
        (FairnessCap(FedCompass()), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_scheduler_whose_nodes_arrive_together_forbids_a_queue(scheduler, allows):
    assert scheduler.allows_prefetch is allows
