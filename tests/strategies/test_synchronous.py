import random

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg

from fedagent import keys
from fedagent.simulation import Equal, Scripted
from fedagent.stopping import MaxSeconds, MaxUpdates
from fedagent.strategies.synchronous import Synchronous
from fedagent.update import Outcome
from fedagent.wire.records import digest
from tests.proxy.test_wall_clock import ThreadGrid
from tests.toy import Log, model, run


def _fedavg():
    random.seed(0)
    return FedAvg(fraction_evaluate=0.0)


def test_observing_changes_nothing():
    plain = run(_fedavg(), Equal(num_nodes=5), rounds=4)
    observed = run(Synchronous(_fedavg()), Equal(num_nodes=5), rounds=4)
    assert digest(plain.result.arrays) == digest(observed.result.arrays)
    assert list(observed.result.train_metrics_clientapp) == [1, 2, 3, 4]


def test_rounds_updates_and_virtual_time_are_counted():
    log = Log()
    run(
        Synchronous(_fedavg(), callbacks=[log]),
        Scripted(num_nodes=3, times=(1.0, 2.0, 5.0)),
        rounds=4,
    )
    assert log.versions == [(1, 3, 5.0), (2, 6, 10.0), (3, 9, 15.0), (4, 12, 20.0)]
    assert log.reason == "4 rounds"
    assert log.statistics.by_outcome() == {"applied": 12}
    assert log.statistics.utilisation == (1 + 2 + 5) / (3 * 5)
    assert log.statistics.bytes_down > 0
    assert log.statistics.bytes_up > 0


def test_callbacks_hear_of_every_job_when_it_begins_and_how_it_ends():
    class Began(Log):
        def on_dispatch(self, statistics, dispatch):
            began.append((dispatch.node_id, dispatch.sent_at_s))

    began: list[tuple[int, float]] = []
    log = Began()
    config = ConfigRecord({keys.LOCAL_STEPS: 1})
    run(
        Synchronous(_fedavg(), callbacks=[log], deadline_s=4.0, skip_busy=False),
        Scripted(num_nodes=3, times=(1.0, 2.0, 5.0)),
        rounds=3,
        train_config=config,
    )
    assert sorted(began) == sorted(log.starts)
    assert len(began) == 9
    ended = [(s.dispatch.version, str(s.outcome), s.reason, s.duration_s) for s in log.settlements]
    assert ended == [
        (0, "applied", "", 1.0),
        (0, "applied", "", 2.0),
        (0, "expired", "deadline", 4.0),
        (1, "applied", "", 1.0),
        (1, "applied", "", 2.0),
        (1, "expired", "deadline", 3.0),  # until 5 s it was at the job of the round before
        (2, "applied", "", 1.0),
        (2, "applied", "", 2.0),
        (2, "expired", "deadline", 2.0),
    ]
    assert {s.dispatch.local_steps for s in log.settlements} == {1}
    assert sum(s.dispatch.bytes_down for s in log.settlements) == log.statistics.bytes_down
    assert [s.staleness for s in log.settlements if s.outcome is Outcome.APPLIED] == [0] * 6
    assert log.statistics.fruitless_nodes() == {1003: {"expired(deadline)": 3}}


def test_a_stopping_condition_ends_a_synchronous_run_after_its_round():
    for condition, rounds in ((MaxUpdates(7), 3), (MaxSeconds(2.0), 2)):
        log = Log()
        observed = Synchronous(_fedavg(), stopping=[condition], callbacks=[log])
        outcome = run(
            observed,
            Equal(num_nodes=3),
            rounds=100,
            evaluate_fn=lambda v, a: MetricRecord({"round": v}),
        )
        assert log.statistics.version == rounds
        assert list(outcome.result.evaluate_metrics_serverapp) == list(range(rounds + 1))
        assert outcome.result.arrays["weight"].numpy().any(), "the last model is not lost"


def test_replies_on_any_grid_are_counted():
    log = Log()
    grid = ThreadGrid(3, 0.0)
    grid.send_and_receive = lambda messages, timeout: [grid._work(m) for m in messages]
    observed = Synchronous(_fedavg(), stopping=[MaxUpdates(7)], callbacks=[log])
    observed.start(grid, ArrayRecord(model().state_dict()), num_rounds=100)
    assert log.statistics.version == 3
    assert log.statistics.by_outcome() == {"applied": 9}
    assert log.statistics.bytes_up > 0
