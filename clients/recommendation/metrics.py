r"""How good a recommender is on held-out ratings.

Every user's held-out item is ranked among *all* items that the user has not rated before, not
among a sample of them: sampled metrics can order recommenders differently (Krichene, Rendle, "On
sampled metrics for item recommendation", KDD 2020).

    hit-rate-at-10   share of users whose item is among the ten best
    ndcg-at-10       1 / log2(rank + 1) for those, rank = 1, 2, ...; 0 for the others; the mean

Among equal scores the held-out item comes last, so that a constant score finds nothing.
"""

from collections.abc import Callable

import torch

from clients.recommendation.data import Ratings

Scores = Callable[[torch.Tensor], torch.Tensor]
"""(n,) users -> (n, I) scores of all items."""

TOP = 10
_USERS_AT_ONCE = 64


def ranks(scores: Scores, held_out: Ratings, *known: Ratings) -> torch.Tensor:
    """Return the rank, from 1, of every held-out item among those its user did not rate in `known`.

    Parameters
    ----------
    held_out : one rating of each user that counts, (N,).
    known : what is left out of a user's ranking.
    """
    found = []
    for part in torch.arange(len(held_out)).split(_USERS_AT_ONCE):
        users, items = held_out.users[part], held_out.items[part]
        table = scores(users).cpu()
        row_of = torch.full((held_out.num_users,), -1)
        row_of[users] = torch.arange(len(users))
        for ratings in known:
            row = row_of[ratings.users]
            table[row[row >= 0], ratings.items[row >= 0]] = -torch.inf
        own = table.gather(1, items.unsqueeze(1))
        found.append((table >= own).sum(1))  # itself, those above, and those as good
    return torch.cat(found)


def ranking_metrics(rank: torch.Tensor) -> dict[str, float]:
    """Return HitRate@10 and NDCG@10 of (N,) ranks."""
    is_hit = rank <= TOP
    gain = is_hit / torch.log2(rank + 1.0)
    return {
        f"hit-rate-at-{TOP}": float(is_hit.double().mean()),
        f"ndcg-at-{TOP}": float(gain.double().mean()),
        "num-examples": float(len(rank)),
    }


def rating_metrics(predicted: torch.Tensor, stars: torch.Tensor) -> dict[str, float]:
    """Return the root mean squared error of (N,) predictions."""
    error = (predicted.cpu().double() - stars.double()).square().mean().sqrt()
    return {"rmse": float(error), "num-examples": float(len(stars))}
