"""Pictures with boxes in memory: random crops to train on, whole pictures to be examined.

Every picture is standardised by its own mean and deviation, so that no statistics are shared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from clients.detection.boxes import Batch, Example, operations
from fedagent.tasks import epochs, stratified
from fedagent.tasks.partitioning import Indices

VISIBLE = 0.4  # share of a box that a crop has to show, or it does not count there


class Collection(NamedTuple):
    """What was read of a user's N pictures."""

    images: Sequence[torch.Tensor]
    """N times (3, H, W) uint8, of any size"""
    boxes: Sequence[torch.Tensor]
    """N times (M, 4) float32"""
    labels: Sequence[torch.Tensor]
    """N times (M,) int64"""
    classes: tuple[str, ...]
    """names of the labels"""
    groups: Indices
    """(N,) what pictures are dealt and split by: the site, or the rarest class on the picture"""
    sites: tuple[str, ...] = ()
    """names of the groups, where they are the nodes"""
    num_broken: int = 0
    """boxes that were left out, see `is_sound`"""
    test: Indices | None = None
    """positions of the test split, where the data says"""


def is_sound(boxes: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return (M,): which boxes have an area, and that inside the (C, H, W) image.

    One pixel over the edge is forgiven: some count pixels from one.
    """
    height, width = image.shape[1:]
    low, high = boxes[:, :2], boxes[:, 2:]
    limit = torch.tensor([width + 1.0, height + 1.0])
    return ((low >= -1) & (high > low) & (high <= limit)).all(1)  # NaN is none of it


@dataclass(frozen=True, eq=False)
class Pictures:
    """A collection, ready to be trained on and to be examined.

    Parameters
    ----------
    collection : what was read.
    crop : height and width of what is trained on, in pixels.
    test_fraction : of each group's pictures, where the data names no test split.
    seed : decides that.
    """

    collection: Collection
    crop: int
    test_fraction: float
    seed: int

    channels: ClassVar[int] = 3

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.collection.classes

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the nodes, where the data has nodes of its own."""
        return self.collection.sites

    @cached_property
    def tested(self) -> Indices:
        """Positions of the pictures in the test split."""
        if self.collection.test is not None:
            return self.collection.test
        shares = self.test_fraction, None
        return stratified(self.collection.groups, shares, np.random.default_rng(self.seed))[0]

    @cached_property
    def dealt(self) -> Indices:
        """Positions of all others, in order."""
        return np.setdiff1d(np.arange(len(self.collection.images)), self.tested)

    @property
    def labels(self) -> torch.Tensor:
        """(N,) what the pictures outside the test split are dealt by."""
        return torch.from_numpy(self.collection.groups[self.dealt])

    def shares(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the (K,) shares of the classes among the boxes on these pictures."""
        labels = torch.cat([self.collection.labels[self.dealt[n]] for n in positions.tolist()])
        return labels.bincount(minlength=len(self.classes)) / max(1, len(labels))

    def draw(self, positions: torch.Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield batches of random crops, epoch after epoch; the global torch seed decides them."""
        for chosen in epochs(positions, batch_size):
            yield Batch.of([self._crop(self._example(self.dealt[n])) for n in chosen.tolist()])

    def examine(self, positions: torch.Tensor) -> Iterator[Example]:
        """Yield whole pictures that a node validates with."""
        for n in positions.tolist():
            yield self._example(self.dealt[n])

    def test(self) -> Iterator[Example]:
        """Yield the whole pictures of the test split."""
        yield from map(self._example, self.tested)

    def test_sites(self) -> list[str]:
        """Return which site each test picture is from."""
        return [self.sites[group] for group in self.collection.groups[self.tested] if self.sites]

    def _example(self, number: int) -> Example:
        image = self.collection.images[number].float()
        image = (image - image.mean()) / image.std().clamp(min=1.0)
        return Example(image, self.collection.boxes[number], self.collection.labels[number])

    def _crop(self, example: Example) -> Example:
        """Return a random square of the picture, flipped and transposed at random.

        Its middle is near one of the boxes, so that few squares are empty. What lies outside of the
        picture is 0, its mean.
        """
        image, boxes, labels = example
        height, width = image.shape[1:]
        room = torch.tensor([max(0, width - self.crop), max(0, height - self.crop)])
        if len(boxes):
            middle = boxes[torch.randint(len(boxes), ())].view(2, 2).mean(0)
            corner = middle - self.crop * (0.2 + 0.6 * torch.rand(2))
        else:
            corner = room * torch.rand(2)
        x, y = torch.minimum(corner.clamp(min=0).long(), room).tolist()
        seen = image[:, y : y + self.crop, x : x + self.crop]
        seen = F.pad(seen, (0, self.crop - seen.shape[2], 0, self.crop - seen.shape[1]))
        moved = boxes - torch.tensor([x, y, x, y])
        shown = operations().clip_boxes_to_image(moved, (self.crop, self.crop))
        is_shown = _area(shown) >= VISIBLE * _area(moved)
        return _turned(Example(seen, shown[is_shown], labels[is_shown]))


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _turned(example: Example) -> Example:
    """Return one of the eight flips and transpositions of a square, at random."""
    image, boxes, labels = example
    size = image.shape[2]
    flip_x, flip_y, transpose = (torch.rand(3) < 0.5).tolist()
    if flip_x:
        image = image.flip(2)
        boxes = torch.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], 1)
    if flip_y:
        image = image.flip(1)
        boxes = torch.stack([boxes[:, 0], size - boxes[:, 3], boxes[:, 2], size - boxes[:, 1]], 1)
    if transpose:
        image, boxes = image.transpose(1, 2), boxes[:, [1, 0, 3, 2]]
    return Example(image, boxes, labels)
