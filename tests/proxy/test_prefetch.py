"""The next job is queued at its node before the last one was applied."""

import random
from collections import Counter, defaultdict

import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import ServerApp

from fedagent import AsyncStrategy, keys, run_simulation
from fedagent.client import ClientSpec, LocalTraining, build_client_app
from fedagent.client.mods import continue_locally_mod
from fedagent.errors import ConfigurationError
from fedagent.nodes.geography import ByMeasure, Listed
from fedagent.rules import AREA, ASGD, FedBuff
from fedagent.scheduling import (
    Assignment,
    DyLU,
    FairnessCap,
    FedCompass,
    NodeSettings,
    PerNode,
    RoundRobin,
)
from fedagent.simulation import Equal, Links, Lognormal, Reliability, Scripted
from fedagent.update import Outcome
from fedagent.wire.records import digest
from tests.client.quadratic import QuadraticTask
from tests.toy import Log, client_app, run


class Load(Log):
    """The most jobs a node had at once, the most nodes at once, and all config that was sent."""

    def __init__(self):
        super().__init__()
        self.open, self.most_jobs, self.most_nodes = Counter(), 0, 0
        self.unapplied = []

    def on_settled(self, statistics, settlement):
        super().on_settled(statistics, settlement)
        self.open[settlement.dispatch.node_id] -= 1

    def strategy(self, rule, **options):
        class Watched(AsyncStrategy):
            def configure_train(watched, server_round, arrays, config, grid):  # noqa: N805
                messages = list(super().configure_train(server_round, arrays, config, grid))
                for message in messages:
                    self.open[message.metadata.dst_node_id] += 1
                    told = message.content["config"].get(keys.UNAPPLIED)
                    self.unapplied.append(None if told is None else len(told))
                self.most_jobs = max(self.most_jobs, *self.open.values())
                self.most_nodes = max(self.most_nodes, sum(n > 0 for n in self.open.values()))
                return messages

        return Watched(rule, fraction_evaluate=0.0, callbacks=[self], **options)


def adds_up(statistics):
    return (
        statistics.num_dispatches == sum(statistics.by_outcome().values())
        and statistics.in_flight == 0
        and statistics.by_outcome().get("applied", 0) == statistics.num_updates
    )


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_node_has_one_job_more_than_it_prefetches(prefetch):
    load = Load()
    run(load.strategy(FedBuff(3), prefetch=prefetch), Lognormal(num_nodes=5), rounds=12)
    assert load.most_jobs == 1 + prefetch
    assert adds_up(load.statistics)
    assert load.statistics.utilisation == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("scheduler", [RoundRobin, DyLU, lambda: FairnessCap(RoundRobin())])
def test_slots_are_nodes_and_everybody_gets_a_turn(scheduler):
    load = Load()
    strategy = load.strategy(ASGD(), prefetch=2, concurrency=3, scheduler=scheduler())
    run(strategy, Equal(num_nodes=9), rounds=30)
    assert load.most_nodes == 3
    assert load.most_jobs == 3
    jobs = Counter(s.dispatch.node_id for s in load.settlements)
    assert len(jobs) == 9
    assert max(jobs.values()) - min(jobs.values()) <= 9


def links_fleet(n=4):
    return Equal(num_nodes=n, links=Links(latency_s=3.0))


def test_prefetch_hides_the_link():
    times = []
    for prefetch in (0, 1, 3):
        load = Load()
        strategy = load.strategy(ASGD(), prefetch=prefetch)
        times.append(run(strategy, links_fleet(), rounds=30).virtual_time_s / 30)
    # A job works 1 s and travels 3 s: every 4 s one is done, then two, then one a second.
    assert times == pytest.approx([4.0, 2.0, 1.1], abs=0.15)


def test_staleness_counts_what_came_out_while_a_job_waited():
    load = Load()
    run(load.strategy(ASGD(), prefetch=1, min_available_nodes=1), Equal(num_nodes=1), rounds=10)
    # One node: each job but the first was sent before the one before it was applied.
    assert load.statistics.staleness_max == 1
    assert load.statistics.staleness_mean == pytest.approx(0.9)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bytes_for_any_number_of_workers(workers):
    fleet = Lognormal(num_nodes=5, links=Links(0.7, 900.0, 300.0))
    alone, helped = (
        run(Load().strategy(FedBuff(2), prefetch=2), fleet, rounds=5, workers=n)
        for n in (0, workers)
    )
    assert digest(alone.result.arrays) == digest(helped.result.arrays)
    assert alone.virtual_time_s == helped.virtual_time_s


@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.2), (0.2, 0.2)])
def test_no_slot_leaks_when_jobs_fail_and_fall_silent(rates):
    load = Load()
    fleet = Equal(num_nodes=6, reliability=Reliability(*rates))
    strategy = load.strategy(ASGD(), prefetch=2, concurrency=4, deadline_s=15.0)
    outcome = run(strategy, fleet, rounds=40, timeout=5000.0)
    assert load.statistics.version == 160, load.reason
    assert adds_up(load.statistics)
    assert load.most_nodes <= 4
    assert load.most_jobs <= 3
    ended = {s.outcome for s in load.settlements}
    assert ended & {Outcome.FAILED, Outcome.EXPIRED}
    assert outcome.virtual_time_s < 5000.0


def test_a_job_settles_once():
    load = Load()
    run(load.strategy(FedBuff(4), prefetch=3), Lognormal(num_nodes=4), rounds=15)
    ids = [s.dispatch.message_id for s in load.settlements]
    assert len(ids) == len(set(ids))
    assert not load.statistics.unsolicited


def test_jobs_name_what_their_model_does_not_hold():
    load = Load()
    strategy = load.strategy(FedBuff(5), prefetch=1, min_available_nodes=1)
    run(strategy, Equal(num_nodes=1), rounds=5)
    # Nothing was published yet: a job's model does not hold any of the jobs before it.
    assert load.unapplied == [0, 1, 2, 3, 4, 5]
    load = Load()
    run(load.strategy(ASGD(), prefetch=1, min_available_nodes=1), Equal(num_nodes=1), rounds=5)
    assert load.unapplied[:3] == [0, 1, 1], "only the job that is under way"
    load = Load()
    run(load.strategy(ASGD(), min_available_nodes=1), Equal(num_nodes=1), rounds=5)
    assert set(load.unapplied) == {None}, "nobody asks"


@pytest.mark.parametrize(
    "options",
    [
        {"rule": AREA(), "prefetch": 1},
        {"rule": ASGD(), "prefetch": 1, "scheduler": FedCompass()},
        {"rule": AREA(), "per_node": PerNode(Listed([[0]]), [NodeSettings(prefetch=1)])},
    ],
)
def test_what_needs_one_job_at_a_time_says_so(options):
    with pytest.raises(ConfigurationError, match="one job at a time per node, so prefetch=1"):
        AsyncStrategy(**options)


@pytest.mark.parametrize("prefetch", [-1, 4])
def test_prefetch_has_limits(prefetch):
    with pytest.raises(ConfigurationError, match=f"prefetch={prefetch} must lie between 0 and 3"):
        AsyncStrategy(ASGD(), prefetch=prefetch)


# --- by device class ------------------------------------------------------------------------------


def test_classes_of_devices_have_their_own_steps_rate_and_prefetch():
    load = Load()
    settings = [NodeSettings(local_steps=8, prefetch=2), NodeSettings(learning_rate=0.5)]
    per_node = PerNode(ByMeasure([2.0], key="seconds-per-step"), settings)
    fleet = Scripted(num_nodes=2, times=(1.0, 3.0))
    run(load.strategy(ASGD(), per_node=per_node), fleet, rounds=6)
    of = defaultdict(set)
    for settlement in load.settlements:
        dispatch = settlement.dispatch
        of[dispatch.node_id].add((dispatch.local_steps, dispatch.learning_rate))
    assert of == {1001: {(8, None)}, 1002: {(None, 0.5)}}
    assert load.most_jobs == 3


def test_a_class_of_devices_is_sent_its_batch_size():
    per_node = PerNode(Listed([[0], [1]]), [NodeSettings(batch_size=64), NodeSettings()])
    job = Assignment(7, local_steps=3)
    assert per_node.adapt(job, {"partition-id": 0}) == Assignment(7, 3, None, 64)
    assert per_node.adapt(job, {"partition-id": 1}) == job
    with pytest.raises(ConfigurationError, match="batch_size=0"):
        NodeSettings(batch_size=0)


def test_every_class_needs_settings():
    with pytest.raises(ConfigurationError, match="1 settings for 2 classes"):
        PerNode(Listed([[0], [1]]), [NodeSettings()])


# --- clients that go on from their own model ------------------------------------------------------


def quadratic_run(prefetch, mods, rounds=40):
    server, kept = ServerApp(), {}
    strategy = AsyncStrategy(
        ASGD(), fraction_evaluate=0.0, prefetch=prefetch, min_available_nodes=1
    )

    @server.main()
    def main(grid, context):
        kept["result"] = strategy.start(
            grid,
            ArrayRecord(QuadraticTask().build_model().state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord({keys.LOCAL_STEPS: 1, keys.LEARNING_RATE: 0.05}),
        )

    client = build_client_app(lambda _: ClientSpec(QuadraticTask(), LocalTraining(), "cpu", mods))
    run_simulation(server, client, fleet=Equal(num_nodes=1))
    return kept["result"].arrays


def test_one_node_that_goes_on_from_its_own_model_trains_as_if_nothing_were_late():
    # ASGD with one node: x is always the sum of all of the node's deltas, so a node that adds its
    # own unapplied ones starts every job where it ended the last. Without, its steps are late.
    on_time = quadratic_run(0, ())
    going_on, late = quadratic_run(2, (continue_locally_mod,)), quadratic_run(2, ())
    assert going_on["y"].numpy() == pytest.approx(on_time["y"].numpy(), abs=1e-6)
    assert abs(late["y"].numpy() - on_time["y"].numpy()).max() > 1e-3


def test_unmodified_client_apps_learn_with_prefetch():
    random.seed(0)
    strategy = AsyncStrategy(FedBuff(3), prefetch=2, evaluate_clients_every=1000)
    result = run(strategy, Lognormal(num_nodes=5), rounds=36, client=client_app()).result
    (error,) = [m["error"] for m in result.evaluate_metrics_clientapp.values()]
    assert error < 0.2
