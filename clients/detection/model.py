r"""A one-stage detector without anchors, small, in the manner of FCOS (arXiv 1904.01355).

    conv 16 /2 - conv 32 /4 - conv 64 /8 - conv 64 /16        3x3, GroupNorm, ReLU; from /4 on a
                                                              residual 3x3 convolution behind each
    /16 -> + /8 -> + /4                                       1x1 convolutions, nearest neighbours
    conv 64 - 1x1: K logits and 4 sides per cell              at /4: one cell every 4 pixels

A cell at the point p says whether an object of class k has its middle near p, and the object's box
(p_x - l, p_y - t, p_x + r, p_y + b) with l, t, r, b = 8 exp(output) pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

STRIDE = 4
"""Pixels between two cells."""

_COARSEST, _UNIT, _PRIOR = 16, 8.0, 0.01


class Detector(nn.Module):
    """Finds objects in pictures of any size.

    Parameters
    ----------
    channels : of the pictures.
    num_classes : K.
    width : channels of the first convolution, a multiple of 8.
    """

    def __init__(self, channels: int = 1, num_classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.num_classes = num_classes
        wide = 4 * width
        self.stem = Block(channels, width, 2)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(Block(width, 2 * width, 2), Residual(2 * width)),
                nn.Sequential(Block(2 * width, wide, 2), Residual(wide)),
                nn.Sequential(Block(wide, wide, 2), Residual(wide)),
            ]
        )
        self.laterals = nn.ModuleList(nn.Conv2d(n, wide, 1) for n in (2 * width, wide, wide))
        self.head = Block(wide, wide)
        self.output = nn.Conv2d(wide, num_classes + 4, 1)
        with torch.no_grad():  # a fresh network sees nothing anywhere: focal loss, section 4.1
            self.output.bias[:num_classes] = math.log(_PRIOR / (1 - _PRIOR))
            self.output.bias[num_classes:] = 0.0
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what every one of the L cells says about (B, C, H, W) images.

        Returns
        -------
        (B, L, K) logits, (B, L, 4) boxes in pixels, and the cells' (L, 2) points.
        """
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % _COARSEST, 0, -height % _COARSEST))
        x, levels = self.stem(images), []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        x = levels.pop()
        while levels:
            x = levels.pop() + F.interpolate(x, scale_factor=2.0)
        out = self.output(self.head(x)).flatten(2).transpose(1, 2).float()
        points = _points(x.shape[2], x.shape[3], out.device)
        # At most 8 e^5 = 1,187 pixels: a wild step must not make a box infinite.
        sides = _UNIT * out[..., self.num_classes :].clamp(max=5.0).exp()
        boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], -1)
        return out[..., : self.num_classes], boxes, points


class Block(nn.Sequential):
    """Convolution, GroupNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(outputs // 8, outputs),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """x + block(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = Block(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, channels, H, W)."""
        out: torch.Tensor = x + self.block(x)
        return out


def _points(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Return the (L, 2) middles of the cells, row by row, as x and y in pixels."""
    y, x = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    return torch.stack([x, y], -1).flatten(0, 1) * STRIDE + STRIDE / 2
