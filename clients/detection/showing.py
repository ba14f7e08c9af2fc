"""Test pictures with the true boxes beside those found."""

from typing import TYPE_CHECKING

import torch

from clients.detection.metrics import SURE, Pairs
from fedagent.errors import imported

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 8
"""Pictures in the figure."""


def drawn(pairs: Pairs, classes: tuple[str, ...]) -> "Figure":
    """Return a figure: above every picture's true boxes, below those found with a sure score."""
    matplotlib = imported("matplotlib.figure", "fedagent[plots]", "Drawing boxes")
    figure: Figure = matplotlib.Figure(figsize=(2.2 * len(pairs), 4.8), layout="constrained")
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for (example, found), (above, below) in zip(pairs, axes.T, strict=True):
        sure = found.scores > SURE
        for ax, boxes, labels in (
            (above, example.boxes, example.labels),
            (below, found.boxes[sure], found.labels[sure]),
        ):
            _draw(ax, example.image, boxes, [classes[k] for k in labels.tolist()])
    axes[0, 0].set_ylabel("truth")
    axes[1, 0].set_ylabel("found")
    return figure


def _draw(ax: "Axes", image: torch.Tensor, boxes: torch.Tensor, names: list[str]) -> None:
    low, high = image.amin(), image.amax()
    pixels = (image - low) / (high - low).clamp(min=1e-6)
    ax.imshow(pixels.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
    ax.set(xticks=[], yticks=[])
    patches = imported("matplotlib.patches", "fedagent[plots]", "Drawing boxes")
    is_crowd = len(set(names)) < 2 or len(names) > 20
    for (x0, y0, x1, y1), name in zip((boxes - 0.5).tolist(), names, strict=True):
        ax.add_patch(patches.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="tab:orange"))
        if not is_crowd:
            ax.text(x0, y0, name, color="tab:cyan", va="bottom", fontsize=8)
