"""Schedulers: who works next, and what they are told to do."""

import copy
import itertools
import json
from collections import Counter

import pytest

from fedagent.errors import ConfigurationError
from fedagent.scheduling import Assignment, IdleNodes, RoundRobin, Scheduler, Uniform

KINDS = [Uniform, RoundRobin]


def idle_of(*nodes: int) -> IdleNodes:
    idle = IdleNodes()
    for node in nodes:
        idle.add(node)
    return idle


def take(scheduler, idle: IdleNodes) -> int:
    """One turn: the node that the scheduler picks works and becomes idle again."""
    node = scheduler.assign(idle, now_s=0.0).node_id
    idle.discard(node)
    idle.add(node)
    return node


def test_a_scheduler_that_chooses_nobody_cannot_be_built():
    class Undecided(Scheduler):
        pass

    with pytest.raises(TypeError, match=r"abstract.*choose"):
        Undecided()


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_idle_nobody_works(kind):
    assert kind().assign(IdleNodes(), now_s=0.0) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_carries_local_steps_and_learning_rate(kind):
    assert kind(5, 0.1).assign(idle_of(7), now_s=0.0) == Assignment(7, 5, 0.1)
    assert kind().assign(idle_of(7), now_s=0.0) == Assignment(7, None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_choosing_leaves_the_node_idle_for_the_caller_to_take(kind):
    idle = idle_of(1, 2)
    kind().assign(idle, now_s=0.0)
    assert list(idle) == [1, 2]


def test_round_robin_goes_round():
    idle, scheduler = idle_of(3, 1, 2), RoundRobin()
    assert [take(scheduler, idle) for _ in range(7)] == [3, 1, 2, 3, 1, 2, 3]


def test_uniform_picks_everybody_equally_often_and_not_in_turn():
    idle, scheduler = idle_of(*range(10)), Uniform(seed=3)
    picked = [take(scheduler, idle) for _ in range(5000)]
    assert all(400 < times < 600 for times in Counter(picked).values())
    repeats = sum(a == b for a, b in itertools.pairwise(picked))
    assert 400 < repeats < 600, "one turn says nothing about the next"


def test_uniform_repeats_with_its_seed():
    def picked(seed: int) -> list[int]:
        idle, scheduler = idle_of(*range(100)), Uniform(seed=seed)
        return [take(scheduler, idle) for _ in range(20)]

    assert picked(1) == picked(1) != picked(2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scheduler_goes_on_where_its_state_was_written_down(kind):
    idle, scheduler = idle_of(*range(100)), kind(seed=1)
    for _ in range(10):
        take(scheduler, idle)
    written = json.loads(json.dumps(scheduler.state_dict()))
    same_idle = copy.deepcopy(idle)
    expected = [take(scheduler, idle) for _ in range(20)]

    resumed = kind(seed=99)
    resumed.load_state_dict(written)
    assert [take(resumed, same_idle) for _ in range(20)] == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"local_steps": 0}, "local_steps=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": -0.1}, "learning_rate=-0.1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
    ],
)
def test_a_job_that_cannot_work_is_refused_by_name(kind, arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        kind(**arguments)
