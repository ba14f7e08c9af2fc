"""What a model does in every hospital: its ROC curve, or forecast against real days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from fedagent.errors import imported
from fedagent.tasks.figures import empty_figure

if TYPE_CHECKING:  # an extra, which only who draws needs
    from matplotlib.figure import Figure

Answers = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Hospital -> its test patients' (N,) scores and (N,) labels."""


def curves(answers: Answers) -> Figure:
    """Return the ROC curve of every hospital."""
    roc = imported("torchmetrics.functional.classification", "fedagent[hospitals]", "A ROC")
    figure = empty_figure(5.0, 5.0)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", lw=1.0, ls="--", label="chance")
    for name, (scores, labels) in answers.items():
        false, true, _ = roc.binary_roc(scores, labels.long())
        axes.plot(false, true, label=f"{name}, {len(labels)} patients")
    axes.set_xlabel("healthy that are called sick")
    axes.set_ylabel("sick that are called sick")
    axes.legend(frameon=False, loc="lower right")
    return figure


def stays(answers: Answers) -> Figure:
    """Return the mean stay and its mean forecast, a point for every hospital."""
    figure = empty_figure(5.0, 5.0)
    axes = figure.subplots()
    means = [[float(log_days.exp().mean()) for log_days in pair] for pair in answers.values()]
    sizes = [len(labels) for _, labels in answers.values()]
    forecast, real = zip(*means, strict=True)
    axes.scatter(forecast, real, sizes, alpha=0.6)
    axes.axline((0, 0), slope=1, color="#999999", lw=1.0, ls="--")
    for name, x, y in zip(answers, forecast, real, strict=True):
        axes.annotate(name, (x, y), fontsize=8)
    axes.set_xlim(min(*forecast, *real) - 1, max(*forecast, *real) + 1)
    axes.set_ylim(axes.get_xlim())
    axes.set_xlabel("forecast days, mean of a hospital")
    axes.set_ylabel("days")
    return figure
