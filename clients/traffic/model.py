"""The networks of the application.

    gru    GRU over the window, its last state
    tcn    three causal convolutions over the window (width 3, dilated 1, 2 and 4), the last hour
           (Bai, Kolter, Koltun, arXiv 1803.01271)
    then   beside the features of all horizons: dense - ReLU - dense, one number per horizon, added
           to the value of a week before

so that a network of zeros is the seasonal naive forecast.
"""

import torch
import torch.nn.functional as F
from torch import nn

from clients.traffic.windows import HORIZONS, LAGS, PER_HORIZON

MODELS = ("gru", "tcn")
_WEEK = 2 * LAGS.index(168)


class Forecaster(nn.Module):
    """Forecasts all horizons at once.

    Parameters
    ----------
    kind : one of `MODELS`.
    hidden : width, >= 1.
    """

    def __init__(self, kind: str = "gru", hidden: int = 32) -> None:
        super().__init__()
        self.encoder = GRU(hidden) if kind == "gru" else TCN(hidden)
        self.dense1 = nn.Linear(hidden + len(HORIZONS) * PER_HORIZON, 2 * hidden)
        self.dense2 = nn.Linear(2 * hidden, len(HORIZONS))

    def forward(self, window: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return (B, H) forecasts of z from a (B, W, 2) window and (B, H, F) features."""
        known = torch.cat([self.encoder(window), features.flatten(1)], 1)
        change: torch.Tensor = self.dense2(F.relu(self.dense1(known)))
        return features[:, :, _WEEK] + change


class GRU(nn.Module):
    """The last state of a GRU."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(2, hidden, batch_first=True)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        """Return (B, hidden)."""
        state: torch.Tensor = self.gru(window)[1]
        return state[0]


class TCN(nn.Module):
    """The last hour of a stack of causal convolutions that reaches 15 hours back."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(2 if n == 0 else hidden, hidden, 3, dilation=2**n) for n in range(3)
        )

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        """Return (B, hidden)."""
        x = window.transpose(1, 2)
        for n, convolution in enumerate(self.convolutions):
            out = F.relu(convolution(F.pad(x, (2 * 2**n, 0))))
            x = out if n == 0 else x + out
        return x[:, :, -1]
