"""The slots' time that did not reach the model: idle, thrown away, or discounted as stale."""

import pytest
from flwr.serverapp.strategy import FedAvg

from fedagent import FedAsync, FedBuff
from fedagent.scheduling import Uniform
from fedagent.simulation import Equal, Scripted
from fedagent.statistics import Statistics
from fedagent.stopping import MaxSeconds
from fedagent.strategies.synchronous import Synchronous
from tests.toy import Log, run


@pytest.mark.parametrize(
    ("received", "useful_s"),
    [([], 0.0), ([(0, 10.0)], 10.0), ([(3, 10.0)], 5.0), ([(0, 4.0), (8, 9.0)], 4.0 + 3.0)],
)
def test_waste_is_all_the_time_but_what_fresh_updates_took(received, useful_s):
    statistics = Statistics(concurrency=2, now_s=10.0)
    for staleness, duration_s in received:
        statistics.received(staleness, duration_s)
    assert statistics.useful_s == pytest.approx(useful_s)
    assert statistics.wasted_s == pytest.approx(20.0 - useful_s)


def test_a_buffer_of_the_whole_equal_fleet_wastes_nothing():
    log = Log()
    run(FedBuff(callbacks=[log], fraction_evaluate=0.0), Equal(num_nodes=4), rounds=10)
    assert log.statistics.wasted_s == pytest.approx(0.0)


def test_what_comes_after_its_deadline_is_wasted_whole():
    log = Log()
    strategy = FedAsync(
        scheduler=Uniform(1),
        deadline_s=5.0,
        stopping=[MaxSeconds(9.5)],
        callbacks=[log],
        fraction_evaluate=0.0,
    )
    run(strategy, Scripted(num_nodes=2, times=(1.0, 10.0)), rounds=1000)
    assert log.statistics.staleness_max == 0
    assert log.statistics.wasted_s == pytest.approx(9.5 + 0.5), "and the job cut off at the end"


def test_waiting_for_the_slowest_is_waste_in_a_synchronous_run():
    log = Log()
    strategy = Synchronous(FedAvg(fraction_evaluate=0.0), callbacks=[log])
    run(strategy, Scripted(num_nodes=2, times=(1.0, 10.0)), rounds=3)
    assert log.statistics.wasted_s == pytest.approx(3 * 9.0)
