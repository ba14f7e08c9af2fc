"""Users for a server that knows none: fitted to the shared items from the training ratings.

What a device does before it trains (`fedagent.client.PrivateTraining`) is done here for all users
side by side. Only a server that has the training ratings can: a simulation's, or one with a panel
of users who gave theirs. Elsewhere the nodes evaluate themselves (``fraction_evaluate``).
"""

from collections.abc import Callable

import torch
from torch import nn

from clients.recommendation.data import Ratings
from clients.recommendation.model import Recommender
from clients.recommendation.sampling import Examples, Sampler
from fedagent.client.device import to_device

_RATINGS = 8
_LEARNING_RATE = 0.05


@torch.enable_grad()
def fit_users(
    panel: Recommender,
    ratings: Ratings,
    loss: Callable[[nn.Module, Examples], torch.Tensor],
    *,
    num_others: int,
    steps: int,
    seed: int,
) -> None:
    """Fit the users of `panel` in place, and leave its items as they are.

    Adam, on 8 ratings of each user a step. The random numbers are its own: the same panel becomes
    the same users, whatever was drawn before.

    Parameters
    ----------
    panel : one row for each user of `ratings`, on any device.
    ratings : what is known of the users; at least one rating of each.
    loss : of a batch, to be minimised.
    num_others : items that were not rated for every rating of a batch, >= 0.
    steps : of Adam, >= 1.
    seed : of what is drawn.
    """
    panel.requires_grad_(False)
    panel.users.requires_grad_(True)
    counts = torch.bincount(ratings.users, minlength=ratings.num_users).unsqueeze(1)
    first = counts.cumsum(0) - counts
    generator = torch.Generator().manual_seed(seed)
    sampler = Sampler(ratings, num_others, generator)
    optimizer = torch.optim.Adam(panel.users.parameters(), lr=_LEARNING_RATE)
    for _ in range(steps):
        drawn = torch.rand(ratings.num_users, _RATINGS, generator=generator)
        batch = sampler.batch(first + (drawn * counts).long())
        batch = batch._replace(users=batch.users[:, :1])
        optimizer.zero_grad()
        loss(panel, to_device(batch, panel.item.weight.device)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
