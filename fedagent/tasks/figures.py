"""Figures that several applications show: finished, small, and without a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fedagent.errors import imported

if TYPE_CHECKING:  # an extra, which only who draws needs
    from matplotlib.figure import Figure

MOST_NAMES = 20
"""Classes that an axis has room to name."""


def empty_figure(width: float = 7.5, height: float = 4.2) -> Figure:
    """Return a figure of this size in inches, whose parts find their places by themselves.

    Raises
    ------
    DataUnavailableError
        If matplotlib is missing.
    """
    # Half a second to import: only those who draw wait for it.
    matplotlib = imported("matplotlib.figure", "fedagent[plots]", "A figure")
    figure: Figure = matplotlib.Figure(figsize=(width, height), layout="constrained")
    return figure


def confusion_matrix(
    labels: torch.Tensor, predicted: torch.Tensor, names: Sequence[str] | None = None
) -> Figure:
    """Return how often each class was taken for which: rows are true, colours shares of a row.

    Parameters
    ----------
    labels, predicted : (N,) int64, N >= 1.
    names : of the classes; None for their numbers.

    Raises
    ------
    DataUnavailableError
        If matplotlib is missing.
    """
    num_classes = len(names) if names else int(max(labels.max(), predicted.max())) + 1
    pairs = labels * num_classes + predicted
    counts = pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    figure = empty_figure(6.0, 5.0)
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if num_classes <= MOST_NAMES:
        shown = names or [str(k) for k in range(num_classes)]
        axes.set_xticks(range(num_classes), shown)
        axes.set_yticks(range(num_classes), shown)
        for row, column in torch.nonzero(counts).tolist():
            color = "white" if shares[row, column] > 0.5 else "black"
            count = int(counts[row, column])
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=8)
    return figure
