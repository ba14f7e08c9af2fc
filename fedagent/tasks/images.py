"""Labelled images in memory. Shape legend: N images, C channels, H = W pixels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Bytes = npt.NDArray[np.uint8]

_EVALUATION_BATCH_SIZE = 100  # more at once leave a CPU's cache: 1,000 take twice as long


@dataclass(frozen=True, eq=False)
class Images:
    """Images and what is on them.

    Attributes
    ----------
    pixels : (N, C, H, W) uint8; a quarter of the memory that floats would take.
    labels : (N,) int64.
    """

    pixels: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, pixels: Bytes, labels: npt.NDArray[np.integer]) -> "Images":
        """Wrap (N, H, W) or (N, H, W, C) `pixels`."""
        tensor = torch.from_numpy(np.array(pixels))  # a copy: the source may be read-only
        tensor = tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)
        return cls(tensor.contiguous(), torch.from_numpy(labels.astype(np.int64)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """C."""
        return self.pixels.shape[1]

    @property
    def size(self) -> int:
        """H = W."""
        return self.pixels.shape[2]

    @property
    def num_classes(self) -> int:
        """Number of classes, of which the last must be among the labels."""
        return int(self.labels.max()) + 1

    def select(self, positions: torch.Tensor) -> "Images":
        """Return the (n,) images at these positions."""
        return Images(self.pixels[positions], self.labels[positions])

    def batch(self, positions: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return those images as (n, C, H, W) float32 in [0, 1], and their (n,) labels."""
        return self.pixels[positions].float().div_(255.0), self.labels[positions]

    def inputs(self) -> Iterator[torch.Tensor]:
        """Yield all images in order, as (B, C, H, W) float32 in [0, 1], to be evaluated."""
        for positions in torch.split(torch.arange(len(self)), _EVALUATION_BATCH_SIZE):
            yield self.batch(positions)[0]
