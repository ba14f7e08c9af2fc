r"""What a user thinks of an item. Shape legend: B pairs, D dimensions, U users.

    mf   score(u, i) = mu + b_u + b_i + p_u . q_i
    ncf  score(u, i) = mu + b_u + b_i + h . [p_u * q_i, MLP([p'_u, q'_i])]       "NeuMF"

mf: Koren, Bell, Volinsky, "Matrix factorization techniques for recommender systems", 2009. ncf: He
et al., "Neural collaborative filtering", arXiv 1708.05031, equation 12, with one table for both
halves of an embedding: [p, p'] has 2 D numbers. The MLP has layers of D and D / 2.

p, p' and b_u are the user's own: `Task.private`. Everything else is shared.
"""

import torch
from torch import nn

from fedagent.errors import one_of, require

MODELS = ("mf", "ncf")
PRIVATE = "users"


class Users(nn.Module):
    """What only a user's own device knows: (U, D) vectors and (U,) biases."""

    def __init__(self, num_users: int, dimension: int, deviation: float) -> None:
        super().__init__()
        self.vector = nn.Embedding(num_users, dimension)
        self.bias = nn.Embedding(num_users, 1)
        nn.init.normal_(self.vector.weight, std=deviation)
        nn.init.zeros_(self.bias.weight)


class Recommender(nn.Module):
    """Scores pairs of users and items.

    Parameters
    ----------
    num_items : I.
    kind : "mf" or "ncf".
    dimension : D, >= 2.
    num_users : U; a device has one, itself.
    mean : mu, a constant: 0 for scores, what people usually give for ratings; b_u learns the rest.
    deviation : standard deviation of the first vectors, > 0.
    """

    def __init__(
        self,
        num_items: int,
        kind: str = "mf",
        dimension: int = 16,
        num_users: int = 1,
        mean: float = 0.0,
        deviation: float = 0.1,
    ) -> None:
        super().__init__()
        one_of("Recommender: kind", kind, MODELS)
        require(dimension >= 2, f"Recommender: dimension={dimension} must be at least 2.")
        width = dimension if kind == "mf" else 2 * dimension
        self.dimension = dimension
        self.users = Users(num_users, width, deviation)
        self.item = nn.Embedding(num_items, width)
        self.item_bias = nn.Embedding(num_items, 1)
        self.mean = mean
        nn.init.normal_(self.item.weight, std=deviation)
        nn.init.zeros_(self.item_bias.weight)
        self.head: nn.Module | None = None
        if kind == "ncf":
            half = dimension // 2
            self.mlp = nn.Sequential(
                nn.Linear(2 * dimension, dimension),
                nn.ReLU(),
                nn.Linear(dimension, half),
                nn.ReLU(),
            )
            self.head = nn.Linear(dimension + half, 1, bias=False)

    def forward(
        self, users: torch.Tensor, items: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score pairs; `users` and `items` are int64 of shapes that broadcast to the result's.

        Returns
        -------
        The scores, and |p_u|^2 + b_u^2 + |q_i|^2 + b_i^2 for whoever wants them small.
        """
        p, q = self.users.vector(users), self.item(items)
        p_bias, q_bias = self.users.bias(users), self.item_bias(items)
        norms = (p.square().sum(-1) + p_bias.square().squeeze(-1)) + (
            q.square().sum(-1) + q_bias.square().squeeze(-1)
        )
        if self.head is None:
            product = (p * q).sum(-1)
        else:
            d = self.dimension
            deep = self.mlp(torch.cat(torch.broadcast_tensors(p[..., d:], q[..., d:]), -1))
            product = self.head(torch.cat((p[..., :d] * q[..., :d], deep), -1)).squeeze(-1)
        return self.mean + (p_bias + q_bias).squeeze(-1) + product, norms

    def all_scores(self, users: torch.Tensor) -> torch.Tensor:
        """Return the (n, I) scores of all items for (n,) users, up to a number per user."""
        users = users.to(self.item.weight.device)
        if self.head is None:
            return self.users.vector(users) @ self.item.weight.T + self.item_bias.weight.T
        items = torch.arange(self.item.num_embeddings, device=users.device)
        return self(users.unsqueeze(1), items)[0]
