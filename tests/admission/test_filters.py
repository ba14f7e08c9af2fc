"""Filters: what passes, what is shortened, what is refused, and what they remember."""

import numpy as np
import pytest
import torch

from fedagent.admission.filters import (
    AFLGuard,
    ClaimBound,
    Direction,
    FLTrust,
    NormBound,
    RateCap,
    StalenessGroups,
    ZenoPlusPlus,
)
from fedagent.admission.quarantine import Quarantine
from fedagent.errors import ConfigurationError, RunStalledError
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import FedBuff
from fedagent.update import Rejection, Update


def model(*numbers: float) -> FlatModel:
    arrays = {"x": np.array(numbers or (0.0, 0.0))}
    return FlatModel(ModelSpec.of(arrays), arrays)


def update(*delta: float, node: int = 1, staleness: int = 0, examples: float = 1.0) -> Update:
    vector = torch.tensor(delta, dtype=torch.float64)
    return Update(node, vector, torch.zeros(len(delta)), staleness, num_examples=examples)


def judged(each, *delta: float, at: FlatModel | None = None, **fields):
    """The step that passes, or the reason of the refusal."""
    found = each.judge(update(*delta, **fields), at or model())
    return found.reason if isinstance(found, Rejection) else pytest.approx(found.delta.tolist())


def test_a_fixed_bound_shortens_or_refuses():
    assert judged(NormBound(max_norm=5.0), 3.0, 4.0) == [3.0, 4.0]
    assert judged(NormBound(max_norm=1.0), 3.0, 4.0) == [0.6, 0.8]
    assert judged(NormBound(max_norm=1.0, action="refuse"), 3.0, 4.0) == "too-long"


def test_a_bound_follows_the_nodes_and_no_single_one_drags_it_however_often_it_speaks():
    bound = NormBound(factor=2.0)
    for node in range(9):
        bound.judge(update(1.0, 0.0, node=node), model())
    for _ in range(200):
        assert judged(bound, 1e9, 0.0, node=99) == [2.0, 0.0]
    for node in range(9):  # and it falls when the nodes' steps do
        bound.judge(update(0.1, 0.0, node=node), model())
    assert judged(bound, 1e9, 0.0, node=99) == [0.2, 0.0]


def test_nobody_gets_credit_for_more_than_some_times_the_usual_claim():
    bound = ClaimBound(factor=3.0)
    for node in range(5):
        bound.judge(update(1.0, node=node, examples=10.0), model())
    assert bound.judge(update(1.0, node=9, examples=1e9), model()).num_examples == 30.0
    assert bound.judge(update(1.0, node=9, examples=20.0), model()).num_examples == 20.0


def test_a_node_is_heard_so_often_and_when_it_is_alone_all_the_same():
    cap = RateCap(most=2, window=4)
    said = [judged(cap, 1.0, node=node) for node in (1, 1, 1, 2, 3, 1)]
    assert [s == "too-often" for s in said] == [False, False, True, False, False, False]
    refusal = RateCap(1, 2)
    refusal.judge(update(1.0), model())
    rejection = refusal.judge(update(1.0), model())
    assert not rejection.blames_node
    alone = RateCap(most=1, window=9)
    assert sum(judged(alone, 1.0) == "too-often" for _ in range(20)) == 10


def test_what_turns_away_from_the_models_way_is_refused():
    x, direction = model(0.0, 0.0), Direction(min_cosine=-0.2, momentum=0.5)
    assert judged(direction, -9.0, 0.0, at=x) == [-9.0, 0.0]  # nothing to compare with yet
    x.vector.add_(torch.tensor([1.0, 0.0], dtype=torch.float64))
    x.version += 1
    for node in (2, 3, 4):
        assert judged(direction, 0.1, 5.0, at=x, node=node) == [0.1, 5.0]
    assert judged(direction, -1.0, 0.0, at=x) == "against-momentum"
    assert judged(direction, 0.0, 0.0, at=x) == [0.0, 0.0]
    x.vector.add_(torch.tensor([0.0, 4.0], dtype=torch.float64))
    x.version += 1  # m is now (.5, 4)
    assert judged(direction, -1.0, 0.0, at=x) == [-1.0, 0.0]
    assert judged(direction, 0.0, -1.0, at=x) == "against-momentum"


def test_where_most_nodes_turn_away_it_is_the_models_way_that_is_wrong():
    x, direction = model(0.0, 0.0), Direction()
    direction.judge(update(1.0, 0.0), x)
    x.vector.sub_(torch.tensor([1.0, 0.0], dtype=torch.float64))  # liars were first
    x.version += 1
    liars = [judged(direction, -1.0, 0.0, at=x, node=node) for node in (7, 8)]
    honest = [judged(direction, 1.0, 0.0, at=x, node=node) for node in (1, 2, 3, 1)]
    assert liars == [[-1.0, 0.0]] * 2
    assert honest == ["against-momentum", "against-momentum", [1.0, 0.0], [1.0, 0.0]]


def trusted_step(calls: list[int]):
    def step(x: FlatModel) -> torch.Tensor:
        calls.append(x.version)
        return torch.tensor([2.0, 0.0], dtype=torch.float64)

    return step


def test_aflguard_takes_what_is_near_the_servers_own_step():
    guard = AFLGuard(trusted_step([]), radius=1.5)
    assert judged(guard, 4.9, 0.0) == [4.9, 0.0]
    assert judged(guard, 5.1, 0.0) == "far-from-trusted"
    assert judged(guard, -2.0, 0.0) == "far-from-trusted"
    assert judged(AFLGuard(trusted_step([]), radius=0.9), 0.0, 0.0) == "far-from-trusted"


def test_zeno_takes_what_leads_down_and_makes_it_as_long_as_its_own():
    zeno = ZenoPlusPlus(trusted_step([]), rho=0.001)
    assert judged(zeno, 30.0, 40.0) == [1.2, 1.6]
    assert judged(zeno, -0.1, 0.0) == "low-score"
    assert judged(zeno, 0.0, 1.0) == "low-score"  # 0 - rho
    assert judged(ZenoPlusPlus(trusted_step([]), eps=0.1), 0.0, 1.0) == [0.0, 2.0]


def test_fltrust_weighs_by_the_cosine_and_makes_all_as_long_as_its_own():
    trust, x = FLTrust(trusted_step([])), model()
    found = trust.judge(update(30.0, 40.0, examples=1e9), x)
    assert found.delta.tolist() == pytest.approx([1.2, 1.6])
    assert found.num_examples == pytest.approx(0.6)
    for delta in ([-0.1, 0.0], [0.0, 1.0], [0.0, 0.0]):
        assert judged(trust, *delta) == "not-trusted"


def test_a_buffer_of_what_fltrust_takes_is_the_papers_mean():
    generator = np.random.default_rng(3)
    deltas = generator.normal(size=(6, 4))
    own = np.array([2.0, 0.0, 0.0, 0.0])
    x, rule = model(*np.zeros(4)), FedBuff(buffer_size=99, staleness=lambda tau: 1.0)
    trust = FLTrust(lambda _: torch.from_numpy(own))
    for delta in deltas:
        found = trust.judge(update(*delta, examples=float(generator.integers(1, 99))), x)
        if isinstance(found, Update):
            rule.receive(x, found)
    rule.flush(x)
    lengths = np.linalg.norm(deltas, axis=1)
    scores = np.maximum(0.0, deltas @ own / lengths / 2.0)
    assert 0 < (scores > 0).sum() < len(deltas)
    expected = scores @ (2.0 * deltas / lengths[:, None]) / scores.sum()
    np.testing.assert_allclose(x.vector.numpy(), expected)


@pytest.mark.parametrize("kind", [FLTrust, ZenoPlusPlus])
@pytest.mark.parametrize(
    ("length", "own", "dtype"), [(1e-42, 2.0, torch.float32), (1e-155, 1e-10, torch.float64)]
)
def test_a_lie_too_short_for_its_dtype_does_not_become_infinite(kind, length, own, dtype):
    tiny = Update(1, torch.tensor([length, 0.0], dtype=dtype), torch.zeros(2), 0)
    found = kind(lambda x: torch.tensor([own, 0.0], dtype=dtype)).judge(tiny, model())
    assert found.delta.tolist() == pytest.approx([own, 0.0], rel=1e-3)


def test_where_the_server_stands_still_fltrust_says_nothing():
    still = FLTrust(lambda x: torch.zeros(2, dtype=torch.float64))
    assert judged(still, -3.0, 4.0) == [-3.0, 4.0]
    assert still.judge(update(1.0, 0.0, examples=1e9), model()).num_examples == 1.0


@pytest.mark.parametrize("kind", [AFLGuard, FLTrust, ZenoPlusPlus])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_server_that_trains_to_infinity_ends_the_run_and_says_so(kind, number):
    lost = kind(lambda x: torch.tensor([number, 0.0], dtype=torch.float64))
    with pytest.raises(RunStalledError, match=f"version 0 is not finite, so {kind.__name__}"):
        lost.judge(update(1.0, 0.0), model())


def test_the_servers_own_step_is_made_anew_for_a_new_version_only():
    calls: list[int] = []
    zeno, x = ZenoPlusPlus(trusted_step(calls), refresh_every=2), model()
    for version in (0, 0, 1, 2, 2, 3, 5):
        x.version = version
        zeno.judge(update(1.0, 0.0), x)
    assert calls == [0, 2, 5]


def test_a_filter_that_trusts_nothing_says_what_it_needs():
    with pytest.raises(ConfigurationError, match="pass step="):
        AFLGuard().judge(update(1.0, 0.0), model())


def test_what_is_unlike_updates_as_late_as_itself_is_refused_and_the_late_are_not():
    groups, generator = StalenessGroups(patience=6), np.random.default_rng(1)
    refused = []
    for job in range(200):
        node = job % 10
        tau = 6 if node == 3 else 0  # one node is late, and its updates look different
        delta = (-3.0 if node == 3 else 1.0) + 0.1 * generator.normal(size=50)
        if node == 7 and job > 50:
            delta *= -20.0
        if judged(groups, *delta, node=node, staleness=tau) == "unlike-its-group":
            refused.append(node)
    assert set(refused) == {7}
    assert len(refused) == 15


def test_a_node_that_is_refused_again_and_again_is_not_heard_for_a_while():
    gate = Quarantine([NormBound(max_norm=1.0, action="refuse")], limit=2.0, decay=0.9)
    said = [judged(gate, 9.0) for _ in range(3)]
    said += [judged(gate, 0.5) for _ in range(4)]
    assert said == ["too-long"] * 3 + ["quarantined"] * 2 + [[0.5]] * 2
    assert judged(gate, 0.5, node=2) == [0.5]


def test_what_costs_a_node_no_rest_makes_it_no_suspect():
    gate = Quarantine([RateCap(1, 50)], limit=0.5)
    assert "quarantined" not in [judged(gate, 1.0) for _ in range(30)]


FILTERS = {
    "norm": lambda: NormBound(factor=0.8),
    "claims": lambda: ClaimBound(1.0),
    "rate": lambda: RateCap(2, 7),
    "direction": lambda: Direction(0.0),
    "aflguard": lambda: AFLGuard(trusted_step([]), radius=1.0),
    "zeno": lambda: ZenoPlusPlus(trusted_step([])),
    "fltrust": lambda: FLTrust(trusted_step([])),
    "groups": lambda: StalenessGroups(patience=3),
    "all": lambda: Quarantine([Direction(0.0), NormBound(), RateCap(3, 9)], limit=1.0),
}


@pytest.mark.parametrize("build", FILTERS.values(), ids=FILTERS)
def test_a_filter_goes_on_from_where_another_was(build):
    def play(each, x, steps):
        generator, said = np.random.default_rng(5), []
        for step in range(60):
            delta, node = generator.normal(size=2), int(generator.integers(5))
            fields = {"node": node, "staleness": step % 3, "examples": float(1 + node)}
            if step in steps:
                found = each.judge(update(*delta, **fields), x)
                x.vector.add_(torch.tensor(delta))
                x.version += 1
                is_refused = isinstance(found, Rejection)
                said.append(
                    found.reason if is_refused else (found.delta.tolist(), found.num_examples)
                )
        return said

    whole = play(build(), model(), range(60))
    first, second, x = build(), build(), model()
    begun = play(first, x, range(30))
    second.load_state_dict(first.state_dict())
    assert begun + play(second, x, range(30, 60)) == whole
    assert any(isinstance(s, str) or s[0] != whole[0][0] for s in whole)


@pytest.mark.parametrize(
    "build",
    [
        lambda: NormBound(max_norm=0.0),
        lambda: NormBound(quantile=1.0),
        lambda: NormBound(factor=0.0),
        lambda: NormBound(action="drop"),
        lambda: ClaimBound(0.5),
        lambda: RateCap(5, 5),
        lambda: Direction(min_cosine=1.0),
        lambda: Direction(momentum=1.0),
        lambda: AFLGuard(radius=0.0),
        lambda: AFLGuard(refresh_every=0),
        lambda: ZenoPlusPlus(rho=-1.0),
        lambda: FLTrust(refresh_every=0),
        lambda: StalenessGroups(gap=0.5),
        lambda: StalenessGroups(memory=1),
        lambda: StalenessGroups(patience=2),
        lambda: Quarantine(limit=0.0),
        lambda: Quarantine(decay=1.0),
    ],
)
def test_what_cannot_work_is_refused(build):
    with pytest.raises(ConfigurationError):
        build()
