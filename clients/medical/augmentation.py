"""Random mirroring, turning and shifting, by whole pixels.

Nothing is interpolated: rotation and zoom smooth an image, and BatchNorm's running statistics,
taken of smoothed images, do not fit those that are tested. See docs/applications/medical.md.
"""

import torch
import torch.nn.functional as F


def mirrored_and_shifted(images: torch.Tensor, max_shift: int = 4) -> torch.Tensor:
    """Mirror half of the images left to right, and shift each up to `max_shift` pixels either way.

    The draws come from the global torch seed. What is shifted in repeats the border.

    Parameters
    ----------
    images : (B, C, H, W).
    max_shift : pixels, >= 0, for height and width alike.
    """
    count, channels, height, width = images.shape
    is_mirrored = (torch.rand(count) < 0.5).view(-1, 1, 1, 1)
    padded = F.pad(
        torch.where(is_mirrored, images.flip(3), images), [max_shift] * 4, mode="replicate"
    )
    top, left = torch.randint(2 * max_shift + 1, (2, count, 1))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    return padded[
        torch.arange(count).view(-1, 1, 1, 1),
        torch.arange(channels).view(1, -1, 1, 1),
        rows.view(count, 1, height, 1),
        columns.view(count, 1, 1, width),
    ]


def turned(images: torch.Tensor) -> torch.Tensor:
    """Turn each image by 0, 90, 180 or 270 degrees; images are (B, C, S, S).

    The draws come from the global torch seed.
    """
    quarters = torch.randint(4, (len(images),)).tolist()
    return torch.stack(
        [image.rot90(quarter, (1, 2)) for image, quarter in zip(images, quarters, strict=True)]
    )
