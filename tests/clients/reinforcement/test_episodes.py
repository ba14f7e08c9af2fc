from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from clients.reinforcement.environments import Machines, Step
from clients.reinforcement.episodes import Steps, act, advantages, loss_of, returns
from clients.reinforcement.model import ActorCritic

CPU = torch.device("cpu")


class Counters(Machines):
    """Machines that count down from their state and pay what action was done; over at 0."""

    factor_ranges: ClassVar = {}
    num_actions = 2

    def __init__(self, factors, states):
        self.left = states[:, 0].copy()

    def observe(self):
        return self.left[:, None].astype(np.float32)

    def step(self, actions):
        self.left -= 1
        return Step(self.observe(), actions.astype(np.float32), self.left == 0)


class Always(nn.Module):
    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, observations):
        return self.logits.expand(*observations.shape[:-1], 2)


def counters(*states):
    return Counters(None, np.array(states, float)[:, None])


def test_an_episode_is_scored_until_it_is_over_and_takes_the_likeliest_action():
    assert returns(Always(0.0, 0.1), counters(3, 7), CPU).tolist() == [3, 7]
    assert returns(Always(0.1, 0.0), counters(3, 7), CPU).tolist() == [0, 0]
    assert returns(Always(0.0, 0.1), counters(10_000), CPU).tolist() == [500], "the longest episode"


def test_steps_after_the_end_of_an_episode_do_not_count():
    steps = act(Always(0.0, 50.0), counters(2, 9), 4, CPU)
    assert steps.counts.T.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert steps.is_over.T.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]
    assert steps.observations.squeeze(-1).T.tolist()[1] == [9, 8, 7, 6, 5]
    assert steps.actions.min() == 1


def test_actions_are_drawn_with_the_policys_chances():
    torch.manual_seed(0)
    steps = act(Always(0.0, float(np.log(3))), counters(*[99] * 500), 20, CPU)
    assert float(steps.actions.float().mean()) == pytest.approx(0.75, abs=0.02)


def some_steps(is_over):
    over = torch.tensor(is_over).unsqueeze(1)
    rewards = torch.tensor([1.0, 2.0, 4.0]).unsqueeze(1)
    counts = 1 - torch.cat((torch.zeros(1, 1), over[:-1]))
    return Steps(torch.zeros(4, 1, 1), torch.zeros(3, 1, dtype=torch.int64), rewards, over, counts)


def test_advantages_by_hand():
    values = torch.tensor([10.0, 20.0, 30.0, 40.0]).unsqueeze(1)
    steps = some_steps([0.0, 0.0, 0.0])
    whole = advantages(steps, values, 0.5, 1.0).squeeze(1).tolist()
    assert whole == [1 + 1 + 1 + 40 / 8 - 10, 2 + 2 + 40 / 4 - 20, 4 + 20 - 30]
    trusting = advantages(steps, values, 0.5, 0.0).squeeze(1).tolist()
    assert trusting == [1 + 10 - 10, 2 + 15 - 20, 4 + 20 - 30]
    ended = advantages(some_steps([0.0, 1.0, 1.0]), values, 0.5, 1.0).squeeze(1).tolist()
    assert ended == [1 + 1 - 10, 2 - 20, 0]


def test_the_loss_makes_what_earned_more_likelier_and_the_critic_better():
    torch.manual_seed(1)
    model = ActorCritic((10.0,), 2, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        steps = act(model, counters(*[5] * 32), 5, CPU)
        optimizer.zero_grad()
        loss_of(model, steps, 1.0, 0.95, 0.01).backward()
        optimizer.step()
    fresh = torch.tensor([[5.0]])
    with torch.no_grad():
        assert float(model(fresh).softmax(-1)[0, 1]) > 0.9
        assert float(model.value(fresh)) > 2.0
