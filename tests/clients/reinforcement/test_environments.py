import numpy as np
import pytest
import torch

from clients.reinforcement.data import load
from clients.reinforcement.environments import MACHINES, Acrobot, CartPole
from fedagent.errors import DataUnavailableError

gymnasium = pytest.importorskip("gymnasium")

REGISTERED = {"cartpole": "CartPole-v1", "acrobot": "Acrobot-v1"}


@pytest.mark.parametrize("name", MACHINES)
def test_machines_move_as_gymnasium_moves_one_with_the_same_physics(name):
    kind, rng = MACHINES[name], np.random.default_rng(3)
    factors = load(name, 3, 1, 1, 5).nodes.numpy()
    starts = rng.uniform(-kind.usual, kind.usual, (3, len(kind.explored)))
    machines = kind(factors, starts)
    singles = []
    for factor, start in zip(factors, starts, strict=True):
        single = gymnasium.make(REGISTERED[name]).unwrapped
        single.reset(seed=0)
        for attribute, value in zip(kind.factor_ranges, factor, strict=True):
            setattr(single, attribute, getattr(single, attribute) * value)
        if kind is CartPole:
            single.total_mass = single.masscart + single.masspole
            single.polemass_length = single.masspole * single.length
        single.state = start
        singles.append(single)
    goes_on = np.ones(3, bool)
    for _ in range(60):
        actions = rng.integers(kind.num_actions, size=3)
        step = machines.step(actions)
        for k in np.flatnonzero(goes_on):
            observed, reward, is_over, *_ = singles[k].step(int(actions[k]))
            assert step.observations[k] == pytest.approx(observed, abs=2e-4)
            assert step.rewards[k] == reward
            assert step.is_over[k] == is_over
        goes_on &= ~step.is_over
    assert name == "acrobot" or not goes_on.any(), "at random, a pole falls within 60 steps"


def test_an_acrobot_that_is_high_enough_is_over_and_pays_nothing():
    machines = Acrobot(np.ones((2, 5)), np.array([[np.pi, 0, 0, 0], [0.0, 0, 0, 0]]))
    step = machines.step(np.array([1, 1]))
    assert step.is_over.tolist() == [True, False]
    assert step.rewards.tolist() == [0, -1]


@pytest.mark.parametrize("name", MACHINES)
def test_physics_stay_in_their_ranges_and_no_two_streams_share_one(name):
    physics = load(name, 4, 3, 50, 1)
    parts = physics.nodes, physics.validation.flatten(0, 1), physics.test
    low, high = torch.tensor(list(MACHINES[name].factor_ranges.values())).T
    for part in parts:
        assert (part >= low * 0.999).all()
        assert (part <= high * 1.001).all()
    rows = [tuple(row) for part in parts for row in part.tolist()]
    assert len(set(rows)) == len(rows) == 4 + 12 + 50
    assert torch.equal(load(name, 2, 3, 50, 1).nodes, physics.nodes[:2])
    assert not torch.equal(load(name, 4, 3, 50, 2).nodes, physics.nodes)


def test_without_gymnasium_the_pip_line_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gymnasium.envs.classic_control.cartpole", None)
    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[reinforcement\]"'):
        CartPole(np.ones((1, 6)), np.zeros((1, 4)))
