"""Scenes of real handwritten digits, made on demand; their boxes are known by construction.

One to five MNIST digits stand on a black canvas, each scaled so that the longer side of the box
around its ink is 12 to 30 pixels. Of two boxes at most a tenth of the smaller one is shared: a
digit that finds no such place in twelve tries is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F

from clients.detection.boxes import NOTHING, Batch, Example, operations
from fedagent.tasks.images import Images

MOST, SIDES, SHARED, TRIES = 5, (12.0, 30.0), 0.1, 12
INK = 50  # of 255: fainter pixels are an edge's blur
_PER_BATCH = 100


@dataclass(frozen=True, eq=False)
class Digits:
    """Digits to compose scenes of. Shape legend: N digits, K places in a scene, S pixels.

    Parameters
    ----------
    images : digits that nodes train and validate with.
    held_out : digits that only test scenes show.
    size : height and width S of a scene.
    num_test : scenes in the test split.
    """

    images: Images
    held_out: Images
    size: int
    num_test: int

    channels: ClassVar[int] = 1
    sites: ClassVar[tuple[str, ...]] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(map(str, range(self.images.num_classes)))

    @property
    def labels(self) -> torch.Tensor:
        """(N,) what the digits are dealt by."""
        return self.images.labels

    def shares(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the (K,) shares of the classes among these digits."""
        return self.labels[positions].bincount(minlength=len(self.classes)) / len(positions)

    def draw(self, positions: torch.Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield new scenes of these digits without end; the global torch seed decides them.

        A batch has at most as many scenes as there are digits.
        """
        composer = Composer(self.images.select(positions), self.size)
        while True:
            yield composer.compose(min(batch_size, len(positions)))

    def examine(self, positions: torch.Tensor) -> Iterator[Example]:
        """Yield the scenes that a node validates with: one per digit, always the same."""
        seed = int(positions.sum())
        yield from Composer(self.images.select(positions), self.size).scenes(len(positions), seed)

    def test(self) -> Iterator[Example]:
        """Yield the test scenes, always the same."""
        yield from Composer(self.held_out, self.size).scenes(self.num_test, seed=0)

    def test_sites(self) -> list[str]:
        """Return nothing: the test scenes are nobody's."""
        return []


@dataclass(frozen=True, eq=False)
class Composer:
    """Composes scenes of some digits."""

    images: Images
    size: int

    @cached_property
    def ink(self) -> torch.Tensor:
        """(N, 4) boxes around the digits' ink, in their own pixels."""
        boxes: torch.Tensor = operations().masks_to_boxes(self.images.pixels[:, 0] > INK)
        return boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])  # the last pixel is inside

    def scenes(self, count: int, seed: int) -> Iterator[Example]:
        """Yield scenes that `seed` decides."""
        generator = torch.Generator().manual_seed(seed)
        for begin in range(0, count, _PER_BATCH):
            batch = self.compose(min(_PER_BATCH, count - begin), generator)
            for image, boxes, labels in zip(*batch[:3], strict=True):
                is_there = labels != NOTHING
                yield Example(image, boxes[is_there], labels[is_there])

    def compose(self, count: int, generator: torch.Generator | None = None) -> Batch:
        """Return new scenes; without a generator the global torch seed decides them."""
        drawn = torch.randint(len(self.images), (count, MOST), generator=generator)
        wanted = torch.randint(1, MOST + 1, (count, 1), generator=generator) > torch.arange(MOST)
        low, high = SIDES
        sides = low + (high - low) * torch.rand(count, MOST, generator=generator)
        ink = self.ink[drawn]
        scales = sides / (ink[..., 2:] - ink[..., :2]).amax(-1)
        extents = (ink[..., 2:] - ink[..., :2]) * scales[..., None]
        boxes, is_there = _placed(extents, wanted, self.size, generator)
        canvas = torch.zeros(count, MOST, self.size, self.size)
        canvas[is_there] = self._painted(
            drawn[is_there], ink[is_there], scales[is_there], boxes[is_there]
        )
        labels = self.images.labels[drawn].masked_fill(~is_there, NOTHING)
        return Batch(canvas.amax(1, keepdim=True), boxes * is_there[..., None], labels)

    def _painted(
        self, digits: torch.Tensor, ink: torch.Tensor, scales: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        """Return (n, S, S) canvases: each digit alone, its ink inside its box."""
        source, _ = self.images.batch(digits)
        own = source.shape[-1]
        # A canvas and an image span [-1, 1]; p(out) = ink + (out - box) / scale, in pixels.
        shift = 2 * (ink[:, :2] + (self.size / 2 - boxes[:, :2]) / scales[:, None]) / own - 1
        zoom = self.size / (own * scales)
        none = torch.zeros_like(zoom)
        rows = (zoom, none, shift[:, 0]), (none, zoom, shift[:, 1])
        matrices = torch.stack([torch.stack(row, -1) for row in rows], 1)
        shape = [len(digits), 1, self.size, self.size]
        grid = F.affine_grid(matrices, shape, align_corners=False)
        return F.grid_sample(source, grid, align_corners=False)[:, 0]


def _placed(
    extents: torch.Tensor, wanted: torch.Tensor, size: int, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, K, 4) boxes of these (B, K, 2) widths and heights, and (B, K): who has a place."""
    count, num_places, _ = extents.shape
    tries = torch.rand(count, num_places, TRIES, 2, generator=generator)
    corners = tries * (size - extents)[:, :, None]
    proposed = torch.cat([corners, corners + extents[:, :, None]], -1)  # (B, K, TRIES, 4)
    boxes, is_there = proposed[:, :, 0].clone(), wanted.clone()
    for k in range(num_places):
        others = boxes[:, None, :k]  # (B, 1, k, 4)
        mine = proposed[:, k, :, None]  # (B, TRIES, 1, 4)
        both = torch.minimum(mine[..., 2:], others[..., 2:])
        both = (both - torch.maximum(mine[..., :2], others[..., :2])).clamp(min=0).prod(-1)
        smaller = torch.minimum(extents[:, k].prod(-1)[:, None], extents[:, :k].prod(-1))
        is_free = ((both <= SHARED * smaller[:, None]) | ~is_there[:, None, :k]).all(-1)
        first = is_free.int().argmax(1)
        boxes[:, k] = proposed[torch.arange(count), k, first]
        is_there[:, k] &= is_free.any(1)
    return boxes, is_there
