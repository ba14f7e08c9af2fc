"""What a policy earns where the physics change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from clients.reinforcement.environments import Machines
from clients.reinforcement.episodes import returns
from fedagent.errors import imported

if TYPE_CHECKING:  # an extra, which only who draws needs
    from matplotlib.figure import Figure

_POINTS, _EPISODES = 21, 8


def returns_by_physics(machines: type[Machines], model: nn.Module, device: torch.device) -> Figure:
    """Draw one curve per quantity: the mean return of a few episodes over its factor."""
    figure: Figure = imported("matplotlib.figure", "fedagent[plots]", "The picture").Figure()
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for number, (name, (low, high)) in enumerate(machines.factor_ranges.items()):
        points = np.geomspace(low, high, _POINTS)
        factors = np.ones((_POINTS * _EPISODES, len(machines.factor_ranges)))
        factors[:, number] = np.repeat(points, _EPISODES)
        usual = machines.usual
        states = rng.uniform(-usual, usual, (len(factors), len(machines.explored)))
        earned = returns(model, machines(factors, states), device).reshape(_POINTS, _EPISODES)
        axes.plot(points, earned.mean(1), label=name.lower())
    axes.set(xscale="log", xlabel="factor of gymnasium's value", ylabel="mean return")
    axes.legend()
    return figure
