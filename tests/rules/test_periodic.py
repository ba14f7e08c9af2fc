"""Versions by the clock."""

import numpy as np
import pytest
import torch

from fedagent import AsyncStrategy, FedBuff
from fedagent import rules as r
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, ModelSpec
from fedagent.nodes.geography import Blocks
from fedagent.rules.staleness import constant
from fedagent.simulation import Equal, Lognormal, Scripted
from fedagent.stopping import MaxVersions
from fedagent.update import Update
from fedagent.wire.records import digest
from tests.toy import Log, run


def strategy(log, period_s, rule=None, **options):
    rule = rule or r.FedBuff(None)
    return AsyncStrategy(
        rule, fraction_evaluate=0.0, callbacks=[log], publish_every_s=period_s, **options
    )


def test_a_version_holds_what_arrived_in_its_period():
    log = Log()
    four = [MaxVersions(4)]
    fleet = Scripted(num_nodes=2, times=(1.0, 1.2))
    run(strategy(log, 2.5, stopping=four), fleet, rounds=1000)
    # Node 0 arrives at 1, 2, 3, ...; node 1 at 1.2, 2.4, 3.6, ...; what comes at the very end of a
    # period belongs to the next.
    assert [now_s for _, _, now_s in log.versions] == [2.5, 5.0, 7.5, 10.0]
    assert [updates for _, updates, _ in log.versions] == [4, 8, 13, 17]


def test_a_period_without_arrivals_makes_no_version():
    log = Log()
    three, fleet = [MaxVersions(3)], Equal(num_nodes=2, seconds_per_step=3.5)
    run(strategy(log, 1.0, stopping=three), fleet, rounds=1000)
    assert [now_s for _, _, now_s in log.versions] == [4.0, 8.0, 11.0]


def test_a_version_is_the_mean_of_what_arrived():
    rule = r.Periodic(r.FedBuff(None, staleness=constant, weighted=False), 10.0)
    model = FlatModel(ModelSpec.of({"x": np.zeros(1)}), {"x": np.zeros(1)})
    base = torch.zeros(1, dtype=torch.float64)
    for arrived_s, delta in ((11.0, 3.0), (13.0, 6.0), (19.0, 0.0)):
        update = Update(1, torch.tensor([delta], dtype=torch.float64), base, 0, arrived_s=arrived_s)
        assert not rule.receive(model, update)
    assert (rule.next_due_s(), rule.pending, float(model.vector[0])) == (20.0, 3, 0.0)
    again = r.Periodic(r.FedBuff(None, staleness=constant, weighted=False), 10.0)
    again.load_state_dict(rule.state_dict())
    assert again.advance(model, 20.0)
    assert float(model.vector[0]) == 3.0
    assert (again.next_due_s(), again.pending) == (float("inf"), 0)


def test_staleness_counts_periods():
    log = Log()
    run(strategy(log, 1.0), Scripted(num_nodes=2, times=(0.3, 5.0)), rounds=11)
    assert log.statistics.staleness_max == 5  # versions at 1, 2, 3, 4 and 5 s


def test_regions_under_a_clock():
    log = Log()
    edges = r.Hierarchical(Blocks(2, 4), lambda: r.Periodic(r.FedBuff(None), 2.0), r.ASGD(), 4)
    three = AsyncStrategy(edges, fraction_evaluate=0.0, stopping=[MaxVersions(3)], callbacks=[log])
    run(three, Equal(num_nodes=4), rounds=1000)
    assert [now_s for _, _, now_s in log.versions] == [4.0, 4.0, 6.0]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bytes_for_any_number_of_workers(workers):
    alone, helped = (
        run(strategy(Log(), 1.7), Lognormal(num_nodes=5), rounds=10, workers=n)
        for n in (0, workers)
    )
    assert digest(alone.result.arrays) == digest(helped.result.arrays)


def test_counts_add_up():
    log = Log()
    run(strategy(log, 2.0, r.FedBuff(3)), Lognormal(num_nodes=5), rounds=10)
    assert log.statistics.by_outcome()["applied"] == log.statistics.num_updates
    assert log.statistics.buffered == 0


@pytest.mark.parametrize("period_s", [0.0, -1.0])
def test_a_period_must_be_positive(period_s):
    with pytest.raises(ConfigurationError, match="publish_every_s"):
        FedBuff(publish_every_s=period_s)


def test_a_buffer_without_a_size_needs_a_clock():
    with pytest.raises(ConfigurationError, match="set publish_every_s too"):
        FedBuff(buffer_size=None)
