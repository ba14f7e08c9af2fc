"""Many nodes: what a task costs does not depend on how many are registered or in flight."""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

import pytest
import torch
from flwr.app import ArrayRecord, RecordDict

from fedagent import FedBuff
from fedagent._flower import empty_run
from fedagent.scheduling import DyLU, FairnessCap, RoundRobin, Uniform, Utility
from fedagent.simulation import Equal, Lognormal, Reliability, SimulationGrid
from fedagent.simulation.workers.inline import Inline
from fedagent.wire.records import digest
from tests.simulation.apps import app_of, arrays, echo, metrics
from tests.toy import Log, run

MILLION = 1_000_000
COMING_AND_GOING = Reliability(
    failure_rate=0.05, silence_rate=0.05, period_s=300.0, online_fraction=0.5
)


@dataclass(frozen=True, kw_only=True)
class Counted(Lognormal):
    """Counts how many profiles were asked for."""

    profiles: Counter = field(default_factory=Counter)

    def profile(self, index):
        self.profiles[index] += 1
        return super().profile(index)


def learn(message, context):
    """Move every weight a little, by the luck of the job."""
    moved = message.content["arrays"].to_torch_state_dict()
    moved = {name: value + 0.1 * torch.randn_like(value) for name, value in moved.items()}
    return RecordDict({"arrays": ArrayRecord(moved), **metrics()})


def buffered(log, **options):
    defaults = {"concurrency": 20, "fraction_evaluate": 0.0, "deadline_s": 50.0}
    return FedBuff(buffer_size=5, callbacks=[log], **(defaults | options))


@pytest.mark.parametrize("scheduler", [Uniform, RoundRobin, DyLU, Utility])
def test_a_run_asks_only_the_nodes_that_it_chooses_from(scheduler):
    log, fleet = Log(), Counted(num_nodes=MILLION, reliability=COMING_AND_GOING)
    run(buffered(log, scheduler=scheduler()), fleet, rounds=5)
    asked = {Uniform: 2, RoundRobin: 2, DyLU: 2, Utility: 32}[scheduler]
    to_count_those_online = 1000
    limit = to_count_those_online + 2 * asked * log.statistics.num_dispatches + 100
    assert log.reason == "5 rounds"
    assert fleet.profiles.total() < limit


def test_an_always_online_fleet_is_asked_for_the_nodes_that_work():
    log, fleet = Log(), Counted(num_nodes=MILLION)
    run(buffered(log), fleet, rounds=5)
    assert fleet.profiles.total() <= log.statistics.num_dispatches + 1
    assert log.statistics.num_updates == 100


@pytest.mark.parametrize("reliability", [Reliability(), COMING_AND_GOING])
@pytest.mark.parametrize("scheduler", [Uniform(), FairnessCap(Uniform())])
def test_more_nodes_than_any_memory_could_list(reliability, scheduler):
    log, fleet = Log(), Equal(num_nodes=10**12, reliability=reliability)
    few = {"fraction_evaluate": 1e-11, "evaluate_clients_every": 2}
    run(buffered(log, scheduler=scheduler, **few), fleet, rounds=6, client=app_of(echo))
    assert log.reason == "6 rounds"
    assert log.statistics.concurrency == 20
    assert log.statistics.evaluation_outcomes["applied", ""] > 5


class Unlisted(Set):
    """Ids that can be asked for, not listed."""

    def __init__(self, ids):
        assert not isinstance(ids, (list, tuple, set, dict)), "somebody listed what is in flight"
        self._ids = ids

    def __contains__(self, message_id):
        return message_id in self._ids

    def __len__(self):
        return len(self._ids)

    def __iter__(self):
        raise AssertionError("somebody goes through all that is in flight")


class StrictGrid(SimulationGrid):
    def pull_messages(self, message_ids):
        return super().pull_messages(Unlisted(message_ids))


def test_no_pull_goes_through_what_is_in_flight():
    log = Log()
    executor = Inline(app_of(echo))
    fleet = Lognormal(num_nodes=100, reliability=COMING_AND_GOING)
    grid = StrictGrid(fleet, executor, empty_run(1), {})
    buffered(log).start(grid, arrays(0.0), num_rounds=5)
    assert log.statistics.num_updates == 5 * 20


def test_a_million_nodes_that_come_go_and_fail_end_well_and_repeat_with_any_executor():
    def outcome(workers: int):
        log = Log()
        fleet = Lognormal(num_nodes=MILLION, jitter=0.2, reliability=COMING_AND_GOING)
        strategy = buffered(log, concurrency=50, deadline_s=5.0)
        ended = run(strategy, fleet, rounds=4, client=app_of(learn), workers=workers)
        return digest(ended.result.arrays), log.statistics

    bytes_inline, statistics = outcome(workers=0)
    counts = statistics.by_outcome()
    assert statistics.num_updates == 200
    assert sum(counts.values()) == statistics.num_dispatches
    assert counts["failed(client-app-crashed)"] == pytest.approx(12, abs=10)
    assert counts["failed(node-unavailable)"] > 0
    assert counts["expired(deadline)"] > 0
    bytes_of_workers, same = outcome(workers=2)
    assert bytes_of_workers == bytes_inline
    assert same.by_outcome() == counts
