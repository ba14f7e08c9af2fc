"""The skeleton of rules with a buffer."""

import numpy as np
import pytest
import torch

from fedagent import AsyncStrategy
from fedagent.errors import ConfigurationError
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import (
    ASGD,
    CA2FL,
    FADAS,
    PORT,
    BufferedRule,
    FedBuff,
    FedNova,
    FedStaleWeight,
    Rennala,
    Rule,
)
from fedagent.simulation import Equal
from fedagent.stopping import MaxVersions
from fedagent.update import Update
from tests.toy import Log, run

BUFFERED = [CA2FL, FADAS, FedBuff, FedNova, FedStaleWeight, PORT, Rennala]


class MeanOfFresh(BufferedRule):
    """Weighs by freshness alone."""

    def weight(self, update):
        return 1.0 / (1 + update.staleness)

    def step(self, model, mean):
        model.vector.add_(mean)


def model() -> FlatModel:
    return FlatModel(ModelSpec.of({"x": np.zeros(1)}), {"x": np.zeros(1)})


def update(delta: float, staleness: int = 0) -> Update:
    base = torch.zeros(1, dtype=torch.float64)
    return Update(1, torch.tensor([delta], dtype=torch.float64), base, staleness)


def test_two_methods_make_a_rule():
    rule, x = MeanOfFresh(2), model()
    assert not rule.receive(x, update(3.0))
    assert (rule.pending, float(x.vector)) == (1, 0.0)
    assert rule.receive(x, update(9.0, staleness=1))
    assert (rule.pending, float(x.vector)) == (0, (3.0 + 9.0 / 2) / 1.5)


def test_flush_applies_the_mean_of_what_is_there_and_says_whether_there_was_anything():
    rule, x = MeanOfFresh(10), model()
    assert not rule.flush(x)
    rule.receive(x, update(1.0))
    rule.receive(x, update(5.0))
    assert rule.flush(x)
    assert (rule.pending, float(x.vector)) == (0, 3.0)
    assert not rule.flush(x)


def test_a_buffer_of_no_size_is_never_full():
    rule, x = MeanOfFresh(None), model()
    assert not any(rule.receive(x, update(1.0)) for _ in range(100))
    assert (rule.pending, rule.needs_clock, float(x.vector)) == (100, True, 0.0)


@pytest.mark.parametrize("rule", BUFFERED)
def test_a_size_of_none_is_published_by_the_clock(rule):
    log = Log()
    strategy = AsyncStrategy(
        rule(buffer_size=None),
        publish_every_s=2.5,
        fraction_evaluate=0.0,
        stopping=[MaxVersions(4)],
        callbacks=[log],
    )
    run(strategy, Equal(num_nodes=3), rounds=1000)
    assert [at_s for _, _, at_s in log.versions] == [2.5, 5.0, 7.5, 10.0]


def test_a_buffer_that_holds_more_than_a_smaller_round_is_full():
    rule, x = MeanOfFresh("cohort"), model()
    rule.begin_round(5)
    assert not any(rule.receive(x, update(1.0)) for _ in range(3))
    rule.begin_round(2)
    assert rule.receive(x, update(5.0))
    assert (rule.pending, float(x.vector)) == (0, 2.0)


@pytest.mark.parametrize("rule", BUFFERED)
@pytest.mark.parametrize(
    ("asked", "sizes"), [("cohort", [None, 4, 2]), (3, [3, 3, 3]), (None, [None, None, None])]
)
def test_a_size_of_cohort_is_that_of_the_round_and_any_other_stays(rule, asked, sizes):
    one = rule(buffer_size=asked)
    found = [one.updates_per_version]
    for num_updates in (4, 2):
        one.begin_round(num_updates)
        found.append(one.updates_per_version)
    assert (found, one.needs_clock) == (sizes, asked is None)


@pytest.mark.parametrize("rule", BUFFERED)
def test_a_size_that_cannot_work_is_named_with_the_rule(rule):
    with pytest.raises(
        ConfigurationError, match=f"{rule.__name__}: buffer_size=0 must be at least"
    ):
        rule(buffer_size=0)


def test_integer_buffers_are_carried_while_the_update_waits():
    arrays = {"x": np.zeros(1), "count": np.array(0)}
    x = FlatModel(ModelSpec.of(arrays), arrays)
    late = Update(1, torch.zeros(1).double(), torch.zeros(1), 0, carried={"count": torch.tensor(7)})
    MeanOfFresh(2).receive(x, late)
    assert int(x.carried["count"]) == 7


def test_an_empty_buffer_saves_no_vector():
    rule, x = MeanOfFresh(2), model()
    sums = [rule.state_dict()["buffer"]["sum"]]
    for delta in (3.0, 9.0):
        rule.receive(x, update(delta))
        sums.append(rule.state_dict()["buffer"]["sum"])
    assert [None if s is None else float(s) for s in sums] == [None, 3.0, None]


def test_a_rule_that_keeps_nothing_back_has_nothing_due():
    rule, x = ASGD(), model()
    assert rule.next_due_s() == np.inf
    assert rule.advance(x, 5.0) is rule.flush(x) is False
    assert (rule.pending, rule.needs_clock, rule.updates_per_version) == (0, False, None)
    assert rule.allows_prefetch is rule.allows_clock is True
    assert rule.is_opaque is False
    assert rule.bytes_between_regions == 0
    assert rule.model_for(1) is rule.version_for(1) is None
    assert rule.job_config(1) == rule.metrics() == rule.lost == {}
    assert float(x.vector) == 0.0


def test_a_rule_that_does_not_look_at_staleness_discounts_nothing():
    assert MeanOfFresh(2).discount(0) == MeanOfFresh(2).discount(1000) == 1.0


def test_a_rule_that_lacks_what_it_must_do_cannot_be_built():
    class Idle(Rule):
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    class Stepless(BufferedRule):
        pass

    with pytest.raises(TypeError, match=r"abstract.*receive"):
        Idle()
    with pytest.raises(TypeError, match=r"abstract.*step"):
        Stepless(2)
