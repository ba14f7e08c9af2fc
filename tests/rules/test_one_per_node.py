"""One update of a node in a version, whichever rule makes it."""

import numpy as np
import pytest
import torch

from fedagent import AsyncStrategy
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import PORT, FedAsync, FedBuff, OnePerNode, Periodic
from fedagent.simulation import Scripted
from fedagent.stopping import MaxUpdates
from fedagent.update import Group, Update
from tests.toy import Log, run


def model() -> FlatModel:
    return FlatModel(ModelSpec.of({"x": np.zeros(1)}), {"x": np.zeros(1)})


def update(node: int, delta: float, **fields) -> Update:
    base = torch.zeros(1, dtype=torch.float64)
    return Update(node, torch.tensor([delta], dtype=torch.float64), base, 0, **fields)


def fed(rule, *updates) -> tuple[FlatModel, list[bool]]:
    x = model()
    return x, [rule.receive(x, each) for each in updates]


def test_a_version_waits_for_as_many_nodes_and_takes_the_newest_of_each():
    rule = OnePerNode(FedBuff(2))
    x, published = fed(rule, update(1, 100.0), update(1, 50.0), update(1, 4.0), update(2, 8.0))
    assert published == [False, False, False, True]
    assert float(x.vector) == 6.0
    assert rule.lost == {"superseded": 2}
    assert rule.pending == 0
    assert rule.take_withdrawn() == {1: 2.0}
    assert rule.take_withdrawn() == {}


def test_or_their_mean():
    sent = update(1, 1.0), update(1, 2.0), update(1, 6.0), update(2, 9.0)
    assert float(fed(OnePerNode(FedBuff(2), "mean"), *sent)[0].vector) == pytest.approx(6.0)


def test_by_the_clock_it_is_one_of_each_node_that_was_heard():
    rule = Periodic(OnePerNode(FedBuff(None)), 1.0)
    x, _ = fed(rule, update(1, 9.0), update(1, 2.0), update(3, 4.0))
    assert rule.flush(x)
    assert float(x.vector) == 3.0


@pytest.mark.parametrize("inner", [FedBuff, PORT])
def test_what_is_held_is_remembered(inner):
    rules = [OnePerNode(inner(3), "mean") for _ in range(2)]
    fed(
        rules[0],
        update(1, 2.0, group=Group(1, 2), metrics={"a": 1}),
        update(1, 4.0),
        update(2, 6.0),
    )
    rules[1].load_state_dict(rules[0].state_dict())
    ends = [fed(rule, update(1, 6.0), update(3, 3.0))[0] for rule in rules]
    assert float(ends[0].vector) == float(ends[1].vector) != 0.0
    assert rules[1].lost == {"superseded": 2}


def test_a_rule_without_a_buffer_is_refused():
    with pytest.raises(ConfigurationError, match="FedAsync has no buffer"):
        OnePerNode(FedAsync())


def test_a_fast_node_is_in_no_version_twice():
    log = Log()
    rule = FedBuff(3)
    members: list[list[int]] = [[]]
    received = rule.receive

    def receive(model, each):
        members[-1].append(each.node_id)
        is_published = received(model, each)
        members.extend([[]] if is_published else [])
        return is_published

    rule.receive = receive
    strategy = AsyncStrategy(
        OnePerNode(rule), fraction_evaluate=0.0, callbacks=[log], stopping=[MaxUpdates(60)]
    )
    run(strategy, Scripted(num_nodes=4, times=[0.1, 1.0, 1.0, 1.0]), rounds=100)
    assert len(members) == 5
    assert all(len(set(nodes)) == len(nodes) for nodes in members)
    assert log.statistics.lost["superseded"] > 20
    assert log.statistics.influence(1001) == pytest.approx(1 / 3, abs=0.05)


def test_more_nodes_per_version_than_there_are_is_an_error_at_the_start():
    strategy = AsyncStrategy(OnePerNode(FedBuff(5)), fraction_evaluate=0.0)
    with pytest.raises(ConfigurationError, match="one update each of 5 nodes, and 4 are connected"):
        run(strategy, Scripted(num_nodes=4, times=[1.0] * 4))
