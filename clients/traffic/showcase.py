"""A week of one sensor: what was counted, what was forecast a day before, and the week before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from clients.traffic.data import Counts
from clients.traffic.windows import HORIZONS, Series
from fedagent.tasks.figures import empty_figure

if TYPE_CHECKING:  # an extra, which only who draws needs
    from matplotlib.figure import Figure

WEEK = 168  # hours


def week(
    model: nn.Module, device: torch.device, counts: Counts, series: Series, sensor: int, begin: int
) -> Figure:
    """Return the figure of 168 hours from `begin` on, or of those that are left.

    Parameters
    ----------
    model : network on `device`.
    series : of the sensor.
    sensor : its column in `counts`.
    begin : first hour, >= FIRST_ORIGIN + max(HORIZONS).
    """
    ahead = max(HORIZONS)
    hours = torch.arange(begin, min(begin + WEEK, len(counts.hours)))
    batch = series.examples(hours - ahead)
    z = model(batch.window.to(device), batch.features.to(device)).cpu()
    forecasts = z[:, HORIZONS.index(ahead)] * series.deviation + series.mean
    figure = empty_figure(height=3.6)
    axes = figure.subplots()
    times, values = counts.hours[hours], counts.values[:, sensor]
    before = values[hours - WEEK]
    axes.plot(times, before, color="#999999", lw=1.0, label="the week before")
    axes.plot(times, values[hours], color="#333333", lw=1.4, label="counted")
    axes.plot(times, forecasts, color="#D55E00", lw=1.4, label=f"forecast {ahead} hours ahead")
    axes.set_ylabel("counts per hour")
    axes.set_title(f"{counts.sensors[sensor]}, from {times[0]}", fontsize=10)
    axes.tick_params(axis="x", labelrotation=30)
    axes.legend(frameon=False)
    return figure
