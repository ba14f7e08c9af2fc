"""A score per phase, the same for every phase of every intersection.

FRAP (Zheng et al., CIKM 2019) and MPLight (Chen et al., AAAI 2020) share one network over phases
in this way. Shape legend: N decisions, P phases, F features that `simulation.features` counts.
"""

import torch
from torch import nn

from clients.traffic_signals.simulation import NUM_FEATURES

_QUEUE = (1.0, 1.0, 0.0, 0.0, 0.5, 0.0)
_SCALE = (10.0, 10.0, 10.0, 10.0, 1.0, 1.0)


class PhaseScorer(nn.Module):
    """Begins as "most standing vehicles first", upstream with them, and learns a correction to it.

    Parameters
    ----------
    hidden : width of the networks, >= 1.
    """

    scale: torch.Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(_SCALE), persistent=False)
        self.weights = nn.Parameter(torch.tensor(_QUEUE))
        self.correction = _network(2 * NUM_FEATURES, hidden)
        for parameter in self.correction[-1].parameters():
            nn.init.zeros_(parameter)
        self.critic = _network(NUM_FEATURES, hidden)

    def forward(self, features: torch.Tensor, exists: torch.Tensor) -> torch.Tensor:
        """Return the (N, P) logits of the phases.

        Parameters
        ----------
        features : (N, P, F), anything where there is no such phase.
        exists : (N, P) bool, phases that there are.
        """
        scaled = features / self.scale
        others = self._mean(scaled, exists).unsqueeze(1).expand_as(scaled)
        learned = self.correction(torch.cat((scaled, others), -1)).squeeze(-1)
        logits: torch.Tensor = features @ self.weights + learned
        return logits.masked_fill(~exists, -torch.inf)

    def value(self, features: torch.Tensor, exists: torch.Tensor) -> torch.Tensor:
        """Return the (N,) values of these states."""
        values: torch.Tensor = self.critic(self._mean(features / self.scale, exists)).squeeze(-1)
        return values

    @staticmethod
    def _mean(features: torch.Tensor, exists: torch.Tensor) -> torch.Tensor:
        shares = exists.float() / exists.sum(1, keepdim=True)
        return (features * shares.unsqueeze(-1)).sum(1)


def _network(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1))
