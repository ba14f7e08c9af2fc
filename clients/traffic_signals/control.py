"""Signals under a model: its decisions are taken greedily, or drawn and remembered.

Shape legend: N decisions, P phases, F features.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from clients.traffic_signals.simulation import Features


class Decisions(NamedTuple):
    """What one signal did, in order."""

    features: torch.Tensor
    """(N, P, F)"""
    exists: torch.Tensor
    """(N, P) bool"""
    phases: torch.Tensor
    """(N,) int64"""
    queues: torch.Tensor
    """(N,) vehicles that stood before the signal when it decided"""


class ModelController:
    """Asks a model for all signals that are due at once.

    Parameters
    ----------
    model : a `PhaseScorer` on `device`.
    remembered : number of the signal whose decisions are kept; None takes the likeliest phases
        instead of drawing them by the global torch seed.
    """

    def __init__(self, model: nn.Module, device: torch.device, remembered: int | None) -> None:
        self.model, self.device, self.remembered = model, device, remembered
        self.seen: list[Features] = []
        self.done: list[int] = []

    @torch.no_grad()
    def __call__(self, due: Mapping[int, Features]) -> dict[int, int]:
        """Return the phases."""
        logits = self.model(*(t.to(self.device) for t in padded(list(due.values())))).cpu()
        if self.remembered is None:
            chosen = logits.argmax(-1)
        else:
            chosen = torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
        phases = dict(zip(due, chosen.tolist(), strict=True))
        if self.remembered is not None and self.remembered in phases:
            self.seen.append(due[self.remembered])
            self.done.append(phases[self.remembered])
        return phases

    def decisions(self) -> Decisions:
        """Return what was remembered, on the device."""
        features, exists = padded(self.seen)
        # Phases share lanes; over the phases a vehicle counts as often as it may go.
        queues = features[..., :2].sum((1, 2))
        found = features, exists, torch.tensor(self.done), queues
        return Decisions(*(tensor.to(self.device) for tensor in found))


def padded(rows: list[Features]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (N, P, F) features of the most phases that any has, and which of them exist."""
    features = np.zeros((len(rows), max(map(len, rows)), rows[0].shape[1]), np.float32)
    exists = np.zeros(features.shape[:2], bool)
    for number, row in enumerate(rows):
        features[number, : len(row)], exists[number, : len(row)] = row, True
    return torch.from_numpy(features), torch.from_numpy(exists)
