"""What holds for every scheduler that learns: seeds, resuming, and hearing of every job once."""

import copy
import json
from collections import Counter

import pytest

from fedagent import AsyncStrategy
from fedagent.rules import Rule, too_stale
from fedagent.scheduling import DyLU, FairnessCap, FedCompass, Paced, Tiers, Uniform, Utility
from fedagent.simulation import Lognormal, Reliability
from fedagent.stopping import MaxUpdates
from tests.scheduling.fleet import SteadyFleet, echo
from tests.toy import Log, run

KINDS = {
    "fedcompass": lambda seed: FedCompass(seed=seed),
    "dylu": lambda seed: DyLU(seed=seed),
    "paced": lambda seed: Paced(seed=seed),
    "tiers": lambda seed: Tiers(3, 2, local_steps=5, seed=seed),
    "utility": lambda seed: Utility(local_steps=5, seed=seed),
    "fair": lambda seed: FairnessCap(Utility(local_steps=5, seed=seed), 1.5),
    "fair-fedcompass": lambda seed: FairnessCap(FedCompass(seed=seed), 1.5),
}
SECONDS = {node: 1.0 + 0.7 * node for node in range(12)}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_seed_decides(kind):
    def jobs(seed):
        fleet, scheduler = SteadyFleet(SECONDS), kind(seed)
        given = fleet.hand_out(scheduler)
        for _ in range(40):
            given += fleet.turn(scheduler)
        return given

    assert jobs(1) == jobs(1)
    assert jobs(1) != jobs(2)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("turns", [0, 1, 7, 40])
def test_a_scheduler_goes_on_where_its_state_was_written_down(kind, turns):
    fleet, scheduler = SteadyFleet(SECONDS), kind(1)
    fleet.hand_out(scheduler)
    for _ in range(turns):
        fleet.turn(scheduler)
    resumed, same_fleet = kind(99), copy.deepcopy(fleet)
    resumed.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    expected = [fleet.turn(scheduler) for _ in range(30)]
    assert [same_fleet.turn(resumed) for _ in range(30)] == expected


class Heard(Uniform):
    def __init__(self):
        super().__init__(3)
        self.observed, self.lost_nodes = [], Counter()

    def observe(self, observation):
        self.observed.append(observation)

    def lost(self, node_id):
        self.lost_nodes[node_id] += 1


class FreshOnly(Rule):
    def rejection(self, update):
        return too_stale(update) if update.staleness > 1 else None

    def receive(self, model, update):
        return True


def test_every_job_is_heard_of_once_whatever_became_of_it():
    log, scheduler = Log(), Heard()
    strategy = AsyncStrategy(
        FreshOnly(),
        scheduler=scheduler,
        concurrency=6,
        deadline_s=20.0,
        callbacks=[log],
        stopping=[MaxUpdates(60)],
        fraction_evaluate=0.0,
    )
    fleet = Lognormal(num_nodes=12, reliability=Reliability(failure_rate=0.1, silence_rate=0.1))
    run(strategy, fleet, rounds=1000, client=echo())

    outcomes = log.statistics.outcomes
    ended = Counter()
    for (outcome, _), times in outcomes.items():
        ended[outcome] += times
    too_stale = outcomes["rejected", "too-stale"]
    assert min(too_stale, ended["failed"], outcomes["expired", "deadline"]) > 0
    assert len(scheduler.observed) == ended["applied"] + too_stale
    assert scheduler.lost_nodes.total() == ended["failed"] + ended["expired"]


def test_an_observation_says_what_the_proxy_knows():
    scheduler = Heard()
    strategy = AsyncStrategy(
        FreshOnly(), scheduler=scheduler, stopping=[MaxUpdates(8)], fraction_evaluate=0.0
    )
    run(strategy, Lognormal(num_nodes=4), rounds=1000)
    assert {o.local_steps for o in scheduler.observed} == {3}
    assert {o.num_examples for o in scheduler.observed} <= {10, 11, 12, 13}
    assert all(o.metrics["loss"] > 0 and o.duration_s > 0 for o in scheduler.observed)
    assert max(o.staleness for o in scheduler.observed) > 1
