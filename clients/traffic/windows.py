r"""Forecasting examples of one sensor. Shape legend: B origins, W hours of history, H horizons.

At the origin t the hours up to t are known; wanted are y(t + h) for the horizons h. Known are

    the window y(t - W + 1) .. y(t)
    per horizon: y(t + h - L) for the lags L in `LAGS`, and the calendar of t + h

all as z = (y - mean) / deviation by the sensor's training hours; both numbers never leave it. A
missing hour is z = 0 beside a 0 that says so: never filled in, and as a target it does not count.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from clients.traffic.data import Floats

WINDOW, HORIZONS, LAGS = 12, (1, 24), (24, 168, 336)  # hours
CALENDAR = 11  # two harmonics of the day, seven weekdays
PER_HORIZON = 2 * len(LAGS) + CALENDAR

FIRST_ORIGIN = max(LAGS) - min(HORIZONS)
"""The first hour from which every lag lies in the data."""


class Examples(NamedTuple):
    """A batch; all float32."""

    window: torch.Tensor
    """(B, W, 2) z and whether it is known"""
    features: torch.Tensor
    """(B, H, PER_HORIZON) per lag z and whether it is known; then the calendar"""
    targets: torch.Tensor
    """(B, H) z, 0 where missing"""
    is_known: torch.Tensor
    """(B, H) 1 where the target counts, 0 where it is missing"""


@dataclass(frozen=True, eq=False)
class Series:
    """One sensor's hours, ready to be cut into examples.

    Attributes
    ----------
    z : (T,) float32, 0 where missing.
    known : (T,) float32, 1 or 0.
    calendar : (T, CALENDAR) float32.
    mean, deviation : of the training hours, in counts.
    """

    z: torch.Tensor
    known: torch.Tensor
    calendar: torch.Tensor
    mean: float
    deviation: float

    @classmethod
    def of(cls, counts: Floats, calendar: torch.Tensor, num_training: int) -> "Series":
        """Standardise (T,) counts by their first `num_training` hours."""
        training = counts[:num_training]
        measured = training[~np.isnan(training)].astype(np.float64)
        mean = float(measured.mean()) if measured.size else 0.0  # a sensor that was added later
        deviation = float(measured.std()) if measured.size and measured.std() > 0 else 1.0
        known = ~np.isnan(counts)
        z = np.where(known, (counts - mean) / deviation, 0)
        return cls(
            torch.from_numpy(z.astype(np.float32)),
            torch.from_numpy(known.astype(np.float32)),
            calendar,
            mean,
            deviation,
        )

    def examples(self, origins: torch.Tensor) -> Examples:
        """Return the examples of (B,) origins, each >= FIRST_ORIGIN and < T - max(HORIZONS)."""
        past = origins[:, None] + torch.arange(1 - WINDOW, 1)
        wanted = origins[:, None] + torch.tensor(HORIZONS)  # (B, H)
        lagged = wanted[:, :, None] - torch.tensor(LAGS)  # (B, H, lags)
        lags = torch.stack([self.z[lagged], self.known[lagged]], -1).flatten(2)
        return Examples(
            torch.stack([self.z[past], self.known[past]], -1),
            torch.cat([lags, self.calendar[wanted]], -1),
            self.z[wanted],
            self.known[wanted],
        )


def calendar(hours: npt.NDArray[np.datetime64]) -> torch.Tensor:
    """Return (T, CALENDAR) float32: sine and cosine of the time of day and twice it, weekday."""
    since_1970 = hours.astype("datetime64[h]").astype(np.int64)
    angle = 2 * np.pi * (since_1970 % 24) / 24
    weekday = np.eye(7)[(since_1970 // 24 + 3) % 7]  # 1970 began on a Thursday; Monday is 0
    waves = [f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)]
    return torch.from_numpy(np.column_stack([*waves, weekday]).astype(np.float32))
