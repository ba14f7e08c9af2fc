"""The set of idle nodes: what it holds, in which order, and how fair its choice is."""

import random
import time
import tracemalloc
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fedagent.scheduling import IdleNodes

NODES = st.integers(0, 9)


class AgainstAList(RuleBasedStateMachine):
    """The plain model: a list in the order in which nodes became idle."""

    @initialize(fresh=st.builds(range, st.integers(0, 5), st.integers(0, 9)))
    def begin(self, fresh):
        self.idle, self.model = IdleNodes(fresh), list(fresh)
        self.one_by_one = of(fresh)

    @rule(node=NODES)
    def add(self, node):
        self.idle.add(node)
        self.one_by_one.add(node)
        if node not in self.model:
            self.model.append(node)

    @rule(node=NODES)
    def discard(self, node):
        self.idle.discard(node)
        self.one_by_one.discard(node)
        if node in self.model:
            self.model.remove(node)

    @precondition(lambda self: self.model)
    @rule()
    def work_off_the_oldest(self):
        assert self.idle.oldest() == self.model[0]
        self.discard(self.model[0])

    @precondition(lambda self: self.model)
    @rule(seed=st.integers(0, 3))
    def draw(self, seed):
        drawn = self.idle.random(random.Random(seed))
        assert drawn in self.model
        assert drawn == self.one_by_one.random(random.Random(seed))

    @invariant()
    def same_nodes_in_the_same_order(self):
        assert list(self.idle) == self.model
        assert len(self.idle) == len(self.model)
        assert bool(self.idle) == bool(self.model)
        assert all((node in self.idle) == (node in self.model) for node in range(10))


TestIdleNodesEqualAList = AgainstAList.TestCase
TestIdleNodesEqualAList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def of(nodes) -> IdleNodes:
    idle = IdleNodes()
    for node in nodes:
        idle.add(node)
    return idle


def test_every_node_is_drawn_equally_often_also_after_removals():
    idle = of(range(20))
    for node in range(0, 20, 2):
        idle.discard(node)
    generator = random.Random(1)
    drawn = Counter(idle.random(generator) for _ in range(5000))
    assert set(drawn) == set(range(1, 20, 2))
    assert all(400 < times < 600 for times in drawn.values())


@pytest.mark.parametrize("count", [0, 1, 4, 9, 10, 11])
def test_a_sample_has_no_node_twice_and_is_fair(count):
    idle, generator, drawn = IdleNodes(range(11)), random.Random(5), Counter()
    idle.discard(3)
    for _ in range(2000):
        sample = idle.sample(count, generator)
        assert len(set(sample)) == len(sample) == min(count, 10)
        drawn.update(sample)
    assert drawn[3] == 0
    assert all(times == pytest.approx(200 * min(count, 10), rel=0.25) for times in drawn.values())
    assert list(idle) == [0, 1, 2, *range(4, 11)]


@pytest.mark.parametrize("count", [1, 49, 50, 90, 97, 100])
def test_a_sample_draws_at_most_about_twice_as_often_as_it_has_nodes(count):
    class Counting(IdleNodes):
        draws = 0

        def random(self, generator):
            self.draws += 1
            return super().random(generator)

    idle, generator = Counting(range(100)), random.Random(5)
    for _ in range(100):
        idle.sample(count, generator)
    assert idle.draws <= 100 * 2 * count


def test_a_node_that_comes_back_is_the_youngest():
    idle = of([1, 2, 3])
    idle.discard(1)
    idle.add(1)
    assert list(idle) == [2, 3, 1]


def test_adding_a_node_twice_does_not_make_it_younger():
    idle = of([1, 2, 1])
    assert list(idle) == [1, 2]


def test_a_million_nodes_of_which_few_have_worked_take_the_memory_of_those_few():
    def bytes_after(num_nodes: int) -> int:
        generator = random.Random(1)
        tracemalloc.start()
        idle = IdleNodes(range(num_nodes))
        for _ in range(500):
            idle.discard(node := idle.random(generator))
            idle.add(node)
            idle.discard(idle.oldest())
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used

    assert bytes_after(1_000_000) < 2 * bytes_after(2000)


def seconds_per_turn(num_nodes: int, turns: int = 5000) -> float:
    idle, generator = of(range(num_nodes)), random.Random(1)
    best = float("inf")
    for _ in range(3):
        before = time.perf_counter()
        for _ in range(turns):
            node = idle.random(generator)
            idle.discard(node)
            idle.add(node)
            idle.discard(idle.oldest())
            idle.add(node)
        best = min(best, time.perf_counter() - before)
    return best


def test_a_turn_costs_no_more_among_two_hundred_thousand_nodes_than_among_a_hundred():
    assert seconds_per_turn(200_000) < 20 * seconds_per_turn(100)
