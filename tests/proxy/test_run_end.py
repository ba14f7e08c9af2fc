"""Flower's Result keeps the newest rounds, and not all of a run of weeks."""

import copy
import pickle

from flwr.app import MetricRecord

from fedagent.proxy.run_end import Newest, RunResult
from fedagent.statistics import KEPT_EVALUATIONS, KEPT_VALUES


def test_the_newest_rounds_are_kept():
    rounds = RunResult().train_metrics_clientapp
    for number in range(KEPT_EVALUATIONS + 3):
        rounds[number] = MetricRecord({"loss": 1.0})
    assert list(rounds) == list(range(3, KEPT_EVALUATIONS + 3))


def test_of_rounds_with_many_metrics_fewer_are_kept():
    rounds = Newest()
    for number in range(5):
        rounds[number] = MetricRecord({"values": [0.0] * (KEPT_VALUES // 2)})
    assert list(rounds) == [3, 4]
    rounds[5] = MetricRecord({"values": [0.0] * KEPT_VALUES, "loss": 0.0})
    assert list(rounds) == [5]


def test_a_round_that_is_filed_again_counts_once():
    rounds = Newest()
    for _ in range(5):
        rounds[0] = MetricRecord({"values": [0.0] * (KEPT_VALUES // 2)})
    rounds[1] = MetricRecord({"values": [0.0] * (KEPT_VALUES // 2)})
    assert list(rounds) == [0, 1]


def test_a_result_can_be_copied_and_pickled():
    result = RunResult()
    result.train_metrics_clientapp[1] = MetricRecord({"loss": 1.0})
    for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert other.train_metrics_clientapp == {1: MetricRecord({"loss": 1.0})}
        other.train_metrics_clientapp[2] = MetricRecord({"loss": 2.0})
        assert len(other.train_metrics_clientapp) == 2
    assert "loss" in repr(result)
