"""How long a node waits before it asks again."""

import pytest

from fedagent.deployment.warm_node.idle import Idleness
from fedagent.errors import ConfigurationError


def test_an_idle_node_asks_ever_less_often_and_soon_again_after_work():
    idleness = Idleness(first_s=1.0, longest_s=5.0, growth=2.0)
    assert [idleness.next_s() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    idleness.reset()
    assert idleness.next_s() == 1.0


def test_a_node_that_would_never_ask_again_is_refused():
    with pytest.raises(ConfigurationError, match="at least"):
        Idleness(longest_s=0.0)
