"""Utility: who has the most to teach goes first."""

import logging
import math
from collections import Counter

import pytest

from fedagent.errors import ConfigurationError
from fedagent.scheduling import IdleNodes, Utility
from tests.scheduling.fleet import done, idle_of


def seen(scheduler: Utility, node: int, loss: float, examples: float = 1.0, *taus: int) -> None:
    for tau in taus or (0,):
        metrics = {"train-loss": loss}
        scheduler.observe(done(node, 1, 1.0, staleness=tau, num_examples=examples, metrics=metrics))


def test_utility_is_examples_times_loss_over_the_staleness_discount():
    scheduler = Utility(beta=0.5)
    seen(scheduler, 1, 2.0, 10.0, 0, 6)
    assert scheduler.utility(1) == pytest.approx(10.0 * 2.0 / (1.0 + 3.0) ** 0.5)


def test_only_the_last_five_staleness_values_count():
    scheduler = Utility(beta=1.0)
    seen(scheduler, 1, 1.0, 1.0, 1000, 1, 2, 3, 4, 5)
    assert scheduler.utility(1) == pytest.approx(1.0 / (1.0 + 3.0))


def test_staleness_is_remembered_across_a_resume():
    scheduler, resumed = Utility(beta=1.0), Utility(beta=1.0)
    seen(scheduler, 1, 1.0, 1.0, 9)
    resumed.load_state_dict(scheduler.state_dict())
    seen(resumed, 1, 1.0, 1.0, 1)
    assert resumed.utility(1) == pytest.approx(1.0 / (1.0 + 5.0))


def test_utilities_are_remembered_across_a_resume():
    scheduler, resumed = Utility(), Utility()
    seen(scheduler, 1, 2.0, 10.0)
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.utility(1) == scheduler.utility(1) == 20.0


def test_beta_zero_ignores_staleness():
    scheduler = Utility(beta=0.0)
    seen(scheduler, 1, 3.0, 2.0, 50)
    assert scheduler.utility(1) == pytest.approx(6.0)


def test_without_exploration_the_best_candidate_is_chosen():
    scheduler = Utility(exploration=0.0, candidates=200)
    for node in range(10):
        seen(scheduler, node, loss=float(node))
    assert {scheduler.assign(idle_of(*range(10)), 0.0).node_id for _ in range(50)} == {9}


def test_a_share_of_the_choices_looks_for_unknown_nodes():
    scheduler = Utility(exploration=0.25, candidates=50, seed=1)
    seen(scheduler, 1, loss=1.0)
    chosen = Counter(scheduler.assign(idle_of(1, 2), 0.0).node_id for _ in range(4000))
    assert 900 < chosen[2] < 1100


def test_one_candidate_is_a_uniform_choice():
    scheduler = Utility(exploration=0.0, candidates=1)
    for node in range(4):
        seen(scheduler, node, loss=float(node))
    chosen = Counter(scheduler.assign(idle_of(*range(4)), 0.0).node_id for _ in range(4000))
    assert all(850 < times < 1150 for times in chosen.values())


def test_one_candidate_that_is_unknown_is_taken_though_nobody_explores():
    assert Utility(exploration=0.0, candidates=1).assign(idle_of(7), 0.0).node_id == 7


def test_a_choice_never_goes_through_the_population():
    class Large(IdleNodes):
        def __iter__(self):
            raise AssertionError("asked for every idle node")

    idle = Large()
    for node in range(1000):
        idle.add(node)
    assert Utility().assign(idle, 0.0) is not None


@pytest.mark.parametrize("loss", [math.nan, math.inf, [1.0, 2.0], None])
def test_a_node_without_a_finite_loss_stays_unknown_and_is_named_once(loss, caplog):
    scheduler = Utility()
    with caplog.at_level(logging.WARNING, "flwr.fedagent"):
        for node in (7, 8):
            scheduler.observe(done(node, 1, 1.0, metrics={"train-loss": loss, "accuracy": 1.0}))
    assert scheduler.utility(7) is None
    assert scheduler.assign(idle_of(7), 0.0).node_id == 7
    assert len(caplog.records) == 1
    assert "Node 7" in caplog.text
    assert "Utility(metric=" in caplog.text


def test_steps_and_learning_rate_are_those_configured():
    job = Utility(local_steps=5, learning_rate=0.1).assign(idle_of(1), 0.0)
    assert (job.local_steps, job.learning_rate) == (5, 0.1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"beta": -1.0}, "beta=-1.0"),
        ({"exploration": 1.5}, "exploration=1.5"),
        ({"candidates": 0}, "candidates=0"),
    ],
)
def test_numbers_that_cannot_work_are_refused_by_name(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        Utility(**arguments)
