"""A small residual network (arXiv 1512.03385), with GroupNorm or BatchNorm.

    stem     conv 3x3 w, stride 2 - norm - ReLU - max pool 2
    stages   residual blocks of w, 2 w and 4 w channels; all but the first halve the image
    head     mean over the image - dense

w = 8 and two classes make 19,450 parameters. GroupNorm (arXiv 1803.08494) has no state beside its
parameters. BatchNorm has running statistics, which travel with the model and are averaged like it.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fedagent.errors import require

NORMS = ("group", "batch")
_GROUPS = 4


def build(channels: int, num_classes: int, norm: str = "group", width: int = 8) -> nn.Module:
    """Return a fresh network for (channels, S, S) images, S >= 4.

    Parameters
    ----------
    channels : of the images.
    num_classes : number of logits.
    norm : one of `NORMS`.
    width : w, a multiple of 4.
    """
    require(width > 0 and width % _GROUPS == 0, f"width={width} must be a positive multiple of 4.")
    return nn.Sequential(
        Standardise(),
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
        _norm(norm, width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Residual(width, width, 1, norm),
        Residual(width, 2 * width, 2, norm),
        Residual(2 * width, 4 * width, 2, norm),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


class Standardise(nn.Module):
    """Give every image mean 0 and variance 1: no statistics of anybody's data are needed."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H, W) standardised `images`; a constant one becomes zero."""
        mean = images.mean((1, 2, 3), keepdim=True)
        deviation = images.std((1, 2, 3), correction=0, keepdim=True)
        return (images - mean) / (deviation + 1e-5)


class Residual(nn.Module):
    """x -> ReLU(norm(conv(ReLU(norm(conv(x))))) + shortcut(x)).

    The shortcut is x itself, or a 1x1 convolution where the shape changes.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = _norm(norm, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, channels_out)
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out and stride == 1
            else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, channels_out, H / stride, W / stride) of (B, channels_in, H, W) `x`."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(_GROUPS, channels)
