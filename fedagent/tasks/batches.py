"""From positions of examples to batches without end."""

from collections.abc import Iterator

import torch


def epochs(positions: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """Yield full batches of `positions`, epoch after epoch, each in a new order.

    The last of an epoch are left out of it where they fill no batch. Fewer than `batch_size` are
    all yielded each time. The order comes from the global torch seed.

    Parameters
    ----------
    positions : (N,) training examples of a node, N >= 1.
    batch_size : examples per batch, >= 1.
    """
    size = min(batch_size, len(positions))
    while True:
        shuffled = positions[torch.randperm(len(positions))]
        for start in range(0, len(positions) - size + 1, size):
            yield shuffled[start : start + size]
