"""A view of the idle nodes."""

import random
from collections import Counter

import pytest

from fedagent.scheduling import Eligible
from tests.scheduling.fleet import idle_of


def even(node: int) -> bool:
    return node % 2 == 0


def test_the_view_is_the_set_without_those_refused():
    view = Eligible(idle_of(5, 4, 3, 2, 1, 0), even)
    assert list(view) == [4, 2, 0]
    assert (len(view), bool(view), view.oldest()) == (3, True, 4)
    assert 2 in view
    assert 3 not in view
    assert 8 not in view
    assert not Eligible(idle_of(1, 3), even)


@pytest.mark.parametrize("others", [0, 10, 500])
def test_eligible_nodes_are_drawn_equally_often_however_many_are_not(others):
    view = Eligible(idle_of(0, 2, 4, 6, *range(1001, 1001 + 2 * others, 2)), even)
    generator = random.Random(2)
    drawn = Counter(view.random(generator) for _ in range(2000))
    assert set(drawn) == {0, 2, 4, 6}
    assert all(400 < times < 600 for times in drawn.values())


def test_a_view_of_a_view_follows_the_set_behind_it():
    idle = idle_of(*range(12))
    view = Eligible(Eligible(idle, even), lambda node: node % 3 == 0)
    assert list(view) == [0, 6]
    view.discard(0)
    view.add(12)
    assert list(view) == [6, 12]
    assert 0 not in idle
    assert 12 in idle


def test_a_view_of_a_view_asks_as_few():
    asked = []
    inner = Eligible(idle_of(*range(10_000)), lambda node: asked.append(node) or even(node))
    view = Eligible(inner, lambda node: node % 3 == 0)
    assert view
    assert view.random(random.Random(1)) % 6 == 0
    assert len(asked) < 100
