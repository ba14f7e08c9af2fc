"""What to beat: the same list for everybody, and stars without any taste.

popularity   score(u, i) = how many users rated i
bias only    stars(u, i) = mu + b_u + b_i

The biases are shrunk, items' first: b_i = sum (r - mu) / (25 + n_i), b_u = sum (r - mu - b_i) /
(10 + n_u); Koren, "Factor in the neighbors", TKDD 2010, section 2.1.
"""

import torch

from clients.recommendation.data import Ratings
from clients.recommendation.metrics import Scores

_ITEM_SHRINKAGE, _USER_SHRINKAGE = 25.0, 10.0


def popularity(train: Ratings) -> Scores:
    """Return everybody's scores: how often each item was rated."""
    counts = torch.bincount(train.items, minlength=train.num_items).float()
    return lambda users: counts.repeat(len(users), 1)


def bias_only(train: Ratings, asked: Ratings) -> torch.Tensor:
    """Return predicted stars of the `asked` ratings."""
    mean = train.values.mean()
    item = _shrunk_mean(train.values - mean, train.items, train.num_items, _ITEM_SHRINKAGE)
    rest = train.values - mean - item[train.items]
    user = _shrunk_mean(rest, train.users, train.num_users, _USER_SHRINKAGE)
    return (mean + user[asked.users] + item[asked.items]).clamp(0.5, 5.0)


def _shrunk_mean(
    values: torch.Tensor, groups: torch.Tensor, num_groups: int, shrinkage: float
) -> torch.Tensor:
    counts = torch.bincount(groups, minlength=num_groups)
    return torch.bincount(groups, values, minlength=num_groups) / (shrinkage + counts)
