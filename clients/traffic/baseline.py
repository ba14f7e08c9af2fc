"""The seasonal naive forecast: as many as at the same hour a week before."""

import torch
from torch import nn

from clients.traffic.windows import LAGS


class SeasonalNaive(nn.Module):
    """The value of 168 hours before; where that is missing of 336; else the training mean."""

    def forward(self, window: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return (B, H) forecasts of z, which is 0 at the mean."""
        (week, has_week), (fortnight, _) = (
            features[:, :, 2 * LAGS.index(lag) : 2 * LAGS.index(lag) + 2].unbind(-1)
            for lag in (168, 336)
        )
        return torch.where(has_week > 0, week, fortnight)
