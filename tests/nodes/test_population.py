"""Nodes that come and go: who is chosen, and how many have to be asked for that."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedagent.nodes.population import Population, PresentNodes
from fedagent.scheduling import Eligible, RoundRobin, Uniform


class There(Population):
    """Nodes for which `is_there` holds; counts how often it was asked."""

    def __init__(self, num_nodes, is_there):
        self.registered, self._is_there, self.asked = range(num_nodes), is_there, 0

    def __contains__(self, node_id):
        self.asked += 1
        return self._is_there(node_id)


def test_a_population_that_cannot_tell_who_is_there_cannot_be_built():
    class Silent(Population):
        registered = range(3)

    with pytest.raises(TypeError, match=r"abstract.*__contains__"):
        Silent()


def odd(node_id):
    return node_id % 2 == 1


def test_every_node_that_is_there_is_drawn_equally_often():
    idle, generator = PresentNodes(There(20, odd)), random.Random(1)
    drawn = Counter(idle.random(generator) for _ in range(5000))
    assert set(drawn) == set(range(1, 20, 2))
    assert all(400 < times < 600 for times in drawn.values())


@given(st.sets(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_idle_are_those_that_are_neither_away_nor_at_work(there, at_work):
    idle = PresentNodes(There(10, there.__contains__))
    for node in at_work:
        idle.discard(node)
    expected = [n for n in range(10) if n in there and n not in at_work]
    assert bool(idle) == bool(expected)
    assert list(idle) == expected
    assert [n for n in range(10) if n in idle] == expected
    if expected:
        assert idle.oldest() == expected[0]
        assert idle.random(random.Random(0)) in expected
    else:
        with pytest.raises(IndexError):
            idle.random(random.Random(0))


def test_the_absent_are_asked_again_at_the_next_look_and_not_before():
    population = There(10, lambda node: node == 9)
    idle = PresentNodes(population)
    assert idle.oldest() == 9
    population.asked = 0
    assert idle.oldest() == 9
    assert population.asked <= 2
    assert sorted(idle.look(There(10, lambda node: True))) == list(range(9))
    assert idle.look(There(10, lambda node: True)) == []


def test_adding_a_node_that_is_idle_and_away_changes_nothing():
    idle = PresentNodes(There(4, odd))
    idle.add(0)
    assert len(idle) == 4
    assert list(idle) == [1, 3]


@pytest.mark.parametrize("kind", [Uniform, RoundRobin])
def test_a_choice_among_a_million_asks_a_handful(kind):
    population = There(1_000_000, odd)
    idle, scheduler = PresentNodes(population), kind()
    chosen = set()
    for _ in range(1000):
        node = scheduler.assign(idle, 0.0).node_id
        idle.discard(node)
        chosen.add(node)
    assert len(chosen) == 1000
    assert all(map(odd, chosen))
    assert population.asked < 10 * 1000


def test_a_view_of_those_present_asks_a_handful_too():
    population = There(1_000_000, odd)
    eligible = Eligible(PresentNodes(population), lambda node: node % 3 > 0)
    for _ in range(100):
        assert eligible
        node = eligible.random(random.Random(3))
        assert odd(node)
        assert node % 3 > 0
    assert population.asked < 100 * 100


def test_a_sample_of_a_million_asks_a_handful():
    population = There(1_000_000, odd)
    sample = PresentNodes(population).sample(500, random.Random(1))
    assert len(set(sample)) == 500
    assert all(map(odd, sample))
    assert population.asked < 10 * 500


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_sample_of_few_that_are_there_has_them_all(count):
    there = {3, 400, 999}
    sample = PresentNodes(There(1000, there.__contains__)).sample(count, random.Random(1))
    assert len(set(sample)) == min(count, 3)
    assert set(sample) <= there


@pytest.mark.parametrize("num_nodes", [1, 999, 1000])
def test_few_nodes_are_counted(num_nodes):
    assert There(num_nodes, odd).count() == num_nodes // 2


def test_many_nodes_are_estimated_from_a_thousand():
    generator = random.Random(2)
    there = {n for n in range(100_000) if generator.random() < 0.3}
    population = There(100_000, there.__contains__)
    assert population.count() == pytest.approx(len(there), rel=0.1)
    assert population.asked <= 1000
