"""What a training step sees: ratings, and for each some items that its user has not rated."""

from typing import NamedTuple

import torch

from clients.recommendation.data import Ratings

_REDRAWS = 2


class Examples(NamedTuple):
    """A batch. Shape legend: B ratings, M items that were not rated for each.

    B may be a shape of its own; that of `users` must broadcast to it.
    """

    users: torch.Tensor
    """(B,)"""
    items: torch.Tensor
    """(B,)"""
    values: torch.Tensor
    """(B,) stars"""
    others: torch.Tensor
    """(B, M)"""


class Sampler:
    """Draws batches of ratings; random numbers come from the generator, or from torch's global one.

    Other items are drawn uniformly from the catalogue, and again, twice at most, where the user has
    rated them: of the heaviest user (a quarter of the catalogue) one in sixty stays. Ratings that
    are held out count as not rated, for a device cannot know them.
    """

    def __init__(
        self, ratings: Ratings, num_others: int, generator: torch.Generator | None = None
    ) -> None:
        self._ratings, self._num_others, self._generator = ratings, num_others, generator
        self._rated = (ratings.users * ratings.num_items + ratings.items).sort().values

    def batch(self, chosen: torch.Tensor) -> Examples:
        """Return the ratings at `chosen` positions, of any shape, with other items."""
        users, items, values = (
            column[chosen]
            for column in (self._ratings.users, self._ratings.items, self._ratings.values)
        )
        others = self._draw(chosen.shape)
        for _ in range(_REDRAWS if self._num_others else 0):
            keys = users.unsqueeze(-1) * self._ratings.num_items + others
            at = torch.searchsorted(self._rated, keys).clamp(max=len(self._rated) - 1)
            others = torch.where(self._rated[at] == keys, self._draw(chosen.shape), others)
        return Examples(users, items, values, others)

    def _draw(self, shape: torch.Size) -> torch.Tensor:
        return torch.randint(
            self._ratings.num_items, (*shape, self._num_others), generator=self._generator
        )
