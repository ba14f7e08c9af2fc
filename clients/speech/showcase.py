"""What a recogniser makes of speech, to look at."""

from typing import TYPE_CHECKING

import torch

from clients.speech.data import WORDS, Sequences
from clients.speech.metrics import said, texts
from fedagent.errors import imported

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 5
"""Sequences of a node that are written down: one of every length."""


def transcript(speaker: str, batch: Sequences, found: list[list[int]]) -> str:
    """Return what a speaker said, and below it what was understood.

    Parameters
    ----------
    speaker : name.
    batch : what was said.
    found : digits that were understood of each sequence.
    """
    lines = [speaker]
    for spoken, heard in list(zip(texts(said(batch)), texts(found), strict=True))[:SHOWN]:
        lines += [f"  said        {spoken}"]
        lines += [f"  understood  {heard}" + ("" if heard == spoken else "   <- wrong")]
    return "\n".join(lines)


def confusion(spoken: torch.Tensor, heard: torch.Tensor) -> "Figure":
    """Return a figure that counts which digit was taken for which.

    Parameters
    ----------
    spoken, heard : (N,) digits of single recordings.
    """
    matplotlib = imported("matplotlib.figure", "fedagent[plots]", "Drawing the confusion matrix")
    size = len(WORDS)
    counts = torch.bincount(size * spoken + heard, minlength=size * size).reshape(size, size)
    figure: Figure = matplotlib.Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts.numpy(), cmap="Blues")
    for row, column in counts.nonzero().tolist():
        axes.text(
            column, row, int(counts[row, column]), ha="center", va="center", color="tab:orange"
        )
    axes.set_xticks(range(size), WORDS, rotation=45)
    axes.set_yticks(range(size), WORDS)
    axes.set(xlabel="understood", ylabel="said", title="single digits, test")
    return figure
