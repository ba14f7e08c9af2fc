"""Examples with boxes. Shape legend: B pictures, C channels, H and W pixels, M boxes.

A box is (x0, y0, x1, y1) in pixels: x to the right, y down, from the upper left corner of the
picture's first pixel; a box of one pixel is one wide.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from fedagent.errors import imported

NOTHING = -1
"""The label of a box that only fills a batch."""


class Example(NamedTuple):
    """One picture and what is on it."""

    image: torch.Tensor
    """(C, H, W) float32"""
    boxes: torch.Tensor
    """(M, 4) float32"""
    labels: torch.Tensor
    """(M,) int64"""


class Batch(NamedTuple):
    """Pictures of one size."""

    images: torch.Tensor
    """(B, C, H, W) float32"""
    boxes: torch.Tensor
    """(B, M, 4) float32, zeros where there is nothing; M >= 1"""
    labels: torch.Tensor
    """(B, M) int64, `NOTHING` where there is nothing"""
    negatives: torch.Tensor = torch.ones(1)
    """(K,) or (1,) float32: weight of what teaches that a class is not there"""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Batch":
        """Stack examples whose pictures have the same size."""
        pad = torch.nn.utils.rnn.pad_sequence
        boxes = pad([e.boxes for e in examples], batch_first=True)
        labels = pad([e.labels for e in examples], batch_first=True, padding_value=NOTHING)
        if not boxes.shape[1]:  # no box at all: one that is none
            boxes = boxes.new_zeros(len(examples), 1, 4)
            labels = labels.new_full((len(examples), 1), NOTHING)
        return cls(torch.stack([e.image for e in examples]), boxes, labels)


def operations() -> Any:
    """Return ``torchvision.ops``; imported late, for it takes seconds."""
    return imported("torchvision.ops", "fedagent[detection]", "Detecting objects")
