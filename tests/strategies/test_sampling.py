"""Who is asked for a round: nodes that are still at work for an earlier one are left out."""

import random

import pytest
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from fedagent.simulation import Equal, Scripted
from fedagent.strategies.sampling import Sampling
from fedagent.strategies.synchronous import Synchronous
from tests.proxy.test_wall_clock import ThreadGrid
from tests.toy import Log, model, run

SLOW = Scripted(num_nodes=8, times=(10.0,) * 8)


class Recorded(FedAvg):
    """FedAvg that keeps whom it asked in each round."""

    def configure_train(self, *arguments):
        messages = list(super().configure_train(*arguments))
        self.rounds = [*getattr(self, "rounds", []), {m.metadata.dst_node_id for m in messages}]
        return messages


def fedavg(**settings):
    random.seed(0)
    return Recorded(**{"fraction_train": 1e-9, "fraction_evaluate": 0.0} | settings)


def asked(fleet, rounds, strategy, **options):
    """Return the nodes that each round asked, and the statistics."""
    log = Log()
    run(Synchronous(strategy, callbacks=[log], **options), fleet, rounds=rounds)
    return getattr(strategy, "rounds", []), log.statistics


COHORTS = [{"min_train_nodes": 2}, {"fraction_train": 0.25}]


@pytest.mark.parametrize("cohort", COHORTS)
def test_a_node_at_work_is_not_asked_again_while_others_are_free(cohort):
    rounds, seen = asked(SLOW, 4, fedavg(**cohort), deadline_s=1.0)
    assert [len(nodes) for nodes in rounds] == [2, 2, 2, 2]
    assert len(set.union(*rounds)) == 8
    assert seen.at_work_max == 8


@pytest.mark.parametrize("cohort", COHORTS)
def test_a_node_at_work_is_asked_again_if_its_user_wants_it(cohort):
    rounds, _ = asked(SLOW, 4, fedavg(**cohort), deadline_s=1.0, skip_busy=False)
    assert len(set.union(*rounds)) < 8


def test_if_too_few_are_free_those_busy_longest_are_asked_too():
    rounds, _ = asked(SLOW, 4, fedavg(min_train_nodes=3), deadline_s=1.0)
    assert [len(nodes) for nodes in rounds] == [3, 3, 3, 3]
    first, second, third, fourth = rounds
    assert not first & second
    assert len(third & first) == 1, "and the two that are free"
    assert not third & second
    assert len(set.union(*rounds)) == 8
    assert not fourth & third - first


def test_a_node_that_is_done_is_free_again():
    fleet = Scripted(num_nodes=2, times=(1.0, 1.5))
    rounds, seen = asked(fleet, 4, fedavg(min_train_nodes=1), deadline_s=1.0)
    assert seen.at_work_max <= 2
    assert all(len(nodes) == 1 for nodes in rounds)
    assert len(set.union(*rounds)) == 2


def test_the_cohort_is_a_fraction_of_all_nodes_not_of_the_free():
    rounds, _ = asked(SLOW, 3, fedavg(fraction_train=0.5), deadline_s=1.0)
    assert [len(nodes) for nodes in rounds] == [4, 4, 4]
    assert not rounds[0] & rounds[1]


def test_nobody_waits_for_nodes_that_are_hidden():
    strategy = fedavg(min_train_nodes=2, min_available_nodes=8)
    rounds, _ = asked(SLOW, 4, strategy, deadline_s=1.0)
    assert len(set.union(*rounds)) == 8
    assert (strategy.min_train_nodes, strategy.min_available_nodes) == (2, 8)
    assert "configure_train" not in vars(strategy)


def test_evaluation_sees_every_node():
    strategy = fedavg(min_train_nodes=2, fraction_evaluate=1.0)
    fleet = Scripted(num_nodes=4, times=(1.0, 1.0, 50.0, 50.0))
    log = Log()
    run(Synchronous(strategy, callbacks=[log], deadline_s=2.0), fleet, rounds=2)
    assert log.statistics.evaluation_outcomes == {("applied", ""): 8}


def test_what_over_selection_left_behind_is_not_asked_again():
    fleet = Scripted(num_nodes=8, times=(1.0,) * 6 + (100.0,) * 2)
    _, seen = asked(fleet, 20, fedavg(min_train_nodes=2), over_selection=2.0)
    assert seen.at_work_max <= 4 + 2
    assert seen.by_outcome()["applied"] == 40
    assert seen.now_s == 20.0, "the two slow nodes never hold up a round"


def test_over_selection_asks_busy_nodes_before_it_asks_fewer():
    rounds, _ = asked(SLOW, 1, fedavg(min_train_nodes=6), over_selection=2.0)
    assert len(rounds[0]) == 8


def test_who_is_done_between_two_rounds_is_heard_before_the_next():
    log = Log()
    strategy = Synchronous(fedavg(min_train_nodes=2), callbacks=[log], deadline_s=0.01)

    grid = ThreadGrid(4, 0.1)

    def evaluate(server_round, arrays):
        grid.finish()
        return MetricRecord({"round": server_round})

    strategy.start(grid, ArrayRecord(model().state_dict()), num_rounds=4, evaluate_fn=evaluate)
    assert log.statistics.at_work_max == 2
    assert log.statistics.unsolicited["late"] >= 6


def test_a_strategy_that_samples_in_its_own_way_samples_from_all():
    inner = fedavg(min_train_nodes=2)
    strategy = DifferentialPrivacyServerSideFixedClipping(inner, 0.0, 1.0, 2)
    sampling = Sampling(strategy)
    with sampling:
        assert "configure_train" not in vars(strategy)
        assert sampling.shown([1, 2, 3], [2]) == [1, 2, 3]
    assert asked(Equal(num_nodes=4), 2, strategy)[1].num_updates == 4
