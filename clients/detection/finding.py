"""From what cells say to the objects in a picture."""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import NamedTuple

import torch
from torch import nn

from clients.detection.boxes import Example, operations

LEAST_SCORE, MOST_CELLS, MOST_OBJECTS, SAME = 0.05, 1000, 400, 0.5
"""Scores below the first are not looked at; boxes of one class that share more than the last (IoU)
are one object."""

_PIXELS = 640_000  # pictures examined at once


class Found(NamedTuple):
    """The objects in one picture, the surest first, on the CPU."""

    boxes: torch.Tensor
    """(M, 4) in pixels, inside the picture"""
    labels: torch.Tensor
    """(M,) int64"""
    scores: torch.Tensor
    """(M,) in [0, 1]"""


def find(
    model: nn.Module, examples: Iterable[Example], device: torch.device
) -> Iterator[tuple[Example, Found]]:
    """Yield every example with what the model finds in it; neighbours of one size go together."""
    for shape, alike in groupby(examples, lambda example: example.image.shape):
        while chunk := list(islice(alike, max(1, _PIXELS // (shape[1] * shape[2])))):
            logits, boxes, _ = model(torch.stack([e.image for e in chunk]).to(device))
            for example, *said in zip(chunk, logits.sigmoid(), boxes, strict=True):
                yield example, objects(*said, (shape[1], shape[2]))


def objects(scores: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> Found:
    """Return the objects in a picture of this height and width.

    Parameters
    ----------
    scores : (L, K) of the classes.
    boxes : (L, 4).
    """
    ops = operations()
    best, flat = scores.flatten().topk(min(MOST_CELLS, scores.numel()))
    flat = flat[best > LEAST_SCORE]
    best, cells, labels = best[: len(flat)], flat // scores.shape[1], flat % scores.shape[1]
    chosen = ops.clip_boxes_to_image(boxes[cells], size)
    kept = ops.batched_nms(chosen, best, labels, SAME)[:MOST_OBJECTS]
    return Found(chosen[kept].cpu(), labels[kept].cpu(), best[kept].cpu())
