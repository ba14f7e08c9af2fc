"""Actor and critic."""

import torch
from torch import nn


class ActorCritic(nn.Module):
    """Two hidden layers each for what to do and for what it is worth; nothing is shared.

    Parameters
    ----------
    scale : (O,) usual sizes of what is observed, which is divided by them.
    num_actions : A.
    hidden : width of the layers, >= 1.
    """

    scale: torch.Tensor

    def __init__(self, scale: tuple[float, ...], num_actions: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.actor = _network(len(scale), hidden, num_actions, gain=0.01)
        self.critic = _network(len(scale), hidden, 1, gain=1.0)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return (..., A) logits of the actions for (..., O) observations."""
        logits: torch.Tensor = self.actor(observations / self.scale)
        return logits

    def value(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the (...) values of (..., O) observations."""
        values: torch.Tensor = self.critic(observations / self.scale).squeeze(-1)
        return values


def _network(inputs: int, hidden: int, outputs: int, gain: float) -> nn.Sequential:
    """Return it with orthogonal weights: an actor that begins almost at random (small gain)."""
    layers = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)
    for layer, strength in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, strength)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
