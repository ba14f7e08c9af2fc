r"""Recommendation as a `Task`. Shape legend: B ratings, M items that were not rated for each.

bpr    L = -log sigma(score(u, i) - score(u, j))                  i rated by u, j not: i before j
bce    L = -log sigma(score(u, i)) - sum_j log(1 - sigma(score(u, j)))    rated or not
mse    L = (stars(u, i) - score(u, i))^2                          how many stars

bpr: Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", arXiv 1205.2618.
bce: He et al., arXiv 1708.05031, equation 7. All plus `regularisation` times the squared norms of
the embeddings in the batch, so that what a batch does not touch stays as it is, bit by bit.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from clients.recommendation.data import PACKAGED, Cut, Ratings, cut, load
from clients.recommendation.model import MODELS, PRIVATE, Recommender
from clients.recommendation.panel import fitted_panel
from clients.recommendation.ranking import ranking_metrics, ranks, rating_metrics
from clients.recommendation.sampling import Examples, Sampler
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks.task import Task

LOSSES = ("bpr", "bce", "mse")


class RecommendationTask(Task):
    """One user per node: its ratings, and its vector, which never leaves it.

    Parameters
    ----------
    dataset : "movielens-packaged", "ml-100k", "ml-1m" or "ml-latest-small".
    model : "mf" or "ncf", see `clients.recommendation.model`.
    loss : "bpr" or "bce" to rank, "mse" to predict stars.
    root : parent of the folders of the data sets that are not packaged.
    num_partitions : the first so many users take part, one on each node; all items do.
    dimension : D >= 2, numbers per embedding.
    num_others : M >= 1, items that were not rated for every rating of a batch; mse draws none.
    regularisation : of the embeddings in a batch, >= 0.
    held_out : share of a user's ratings, the latest, that are the test, and as many before them
        for validation; 0 is one each. Ranking needs 0.
    report : "test", or "validation" to choose settings by: what the server evaluates on.
    panel_steps : with which the server fits users of its own to evaluate, see `fitted_panel`, >= 1.
    seconds_per_step : not used; who rated what does not depend on speed.
    seed : of the server's evaluation.
    """

    private: ClassVar[Sequence[str]] = (PRIVATE,)

    def __init__(
        self,
        dataset: str = PACKAGED,
        *,
        model: str = "mf",
        loss: str = "bpr",
        root: str = "data",
        num_partitions: int = 671,
        dimension: int = 16,
        num_others: int = 4,
        regularisation: float = 1e-2,
        held_out: float = 0.0,
        report: str = "test",
        panel_steps: int = 40,
        seconds_per_step: Sequence[float] | None = None,
        seed: int = 1,
    ) -> None:
        one_of("RecommendationTask: model", model, MODELS)
        one_of("RecommendationTask: loss", loss, LOSSES)
        one_of("RecommendationTask: report", report, ("test", "validation"))
        for name, value, holds, must in (
            ("num_partitions", num_partitions, num_partitions >= 1, "be at least 1"),
            ("num_others", num_others, num_others >= 1, "be at least 1"),
            ("regularisation", regularisation, regularisation >= 0, "not be negative"),
            ("held_out", held_out, 0 <= held_out <= 1 / 3, "lie in [0, 1/3]"),
            ("held_out", held_out, held_out == 0 or loss == "mse", "be 0 to rank: one item each"),
            ("panel_steps", panel_steps, panel_steps >= 1, "be at least 1"),
        ):
            require(holds, f"RecommendationTask: {name}={value} must {must}.")
        self.dataset, self.root = dataset, root
        self.model, self.kind, self.dimension = model, loss, dimension
        self.num_partitions = num_partitions
        self.num_others = 0 if loss == "mse" else num_others
        self.regularisation, self.held_out = regularisation, held_out
        self.report = report
        self.panel_steps, self.seed = panel_steps, seed

    @property
    def metric(self) -> Metric:  # type: ignore[override]
        """HitRate@10, or the root mean squared error of predicted stars."""
        return Metric("rmse", "min") if self.kind == "mse" else Metric("hit-rate-at-10")

    @cached_property
    def cut(self) -> Cut:
        """The ratings of the users that take part, loaded on first use.

        Raises
        ------
        ConfigurationError
            If there are fewer users.
        """
        ratings = load(self.dataset, self.root)
        require(
            self.num_partitions <= ratings.num_users,
            f"{self.dataset} has {ratings.num_users} users, not {self.num_partitions}; set "
            f"fleet.num_nodes={ratings.num_users}.",
        )
        first = ratings.where(ratings.users < self.num_partitions)
        return cut(
            Ratings(first.users, first.items, first.values, self.num_partitions, first.num_items),
            self.held_out,
        )

    def user(self, partition_id: int) -> Cut:
        """Return one user's ratings.

        Raises
        ------
        ConfigurationError
            If there is no such partition.
        """
        require(
            0 <= partition_id < self.num_partitions,
            f"partition-id={partition_id} does not exist: {self.num_partitions} users take part, "
            "numbered from 0; raise num_partitions, or start the node with a smaller "
            "partition-id.",
        )
        return Cut(*(ratings.of(partition_id) for ratings in self.cut))

    def build_model(self) -> nn.Module:
        """Return a device's model: all items, one user."""
        return self.build_panel(1)

    def build_panel(self, num_users: int | None = None) -> Recommender:
        """Return a model with that many users, or all of them."""
        return Recommender(
            self.cut.train.num_items,
            self.model,
            self.dimension,
            num_users or self.num_partitions,
            mean=3.5 if self.kind == "mse" else 0.0,
            # Stars follow from biases alone, nearly: vectors begin as almost nothing beside them.
            deviation=0.02 if self.kind == "mse" else 0.1,
        )

    def num_examples(self, partition_id: int) -> int:
        """Return 1: a user is one example, as in the metric, whatever the number of ratings.

        Weighed by their ratings, the few who rate most would make the model.
        """
        self.user(partition_id)
        return 1

    def batches(self, partition_id: int | None, batch_size: int) -> Iterator[Examples]:
        """Yield full batches, epoch after epoch, each in a new order.

        A user with fewer than `batch_size` ratings yields all of them each time. ``None`` pools
        the ratings of all users, whose numbers fit `build_panel`'s model.
        """
        ratings = self.cut.train if partition_id is None else self.user(partition_id).train
        sampler = Sampler(ratings, self.num_others)
        size = min(batch_size, len(ratings))
        while True:
            order = torch.randperm(len(ratings))
            for start in range(0, len(ratings) - size + 1, size):
                batch = sampler.batch(order[start : start + size])
                # All of a node's ratings are its one user's: the vector is looked up once.
                yield batch if partition_id is None else batch._replace(users=batch.users[:1])

    def loss(self, model: nn.Module, batch: Examples) -> torch.Tensor:
        """Return the mean of L over a batch."""
        items = torch.cat((batch.items.unsqueeze(-1), batch.others), -1)
        scores, norms = model(batch.users.unsqueeze(-1), items)
        rated, others = scores[..., 0], scores[..., 1:]
        if self.kind == "mse":
            fit = (rated - batch.values).square().mean()
        elif self.kind == "bpr":
            fit = -F.logsigmoid(rated.unsqueeze(-1) - others).mean()
        else:
            fit = -(F.logsigmoid(rated) + F.logsigmoid(-others).sum(-1)).mean()
        return fit + self.regularisation * norms.mean()

    def evaluate(
        self, model: nn.Module, device: torch.device, partition_id: int | None = None
    ) -> dict[str, float]:
        """Return HitRate@10 and NDCG@10, or the error of predicted stars, of the held-out ratings.

        A node evaluates its own user on its validation rating. The server has no users: it fits
        some of its own to the items, from the training ratings (see `fitted_panel`).
        """
        assert isinstance(model, Recommender)
        if partition_id is not None:
            own = self.user(partition_id)
            return self.measure(model, own.validation, own.train)
        return self.measure(fitted_panel(self, model, device), *self.reported)

    @property
    def reported(self) -> tuple[Ratings, ...]:
        """The held-out ratings that the server reports on, and what came before them."""
        train, validation, test = self.cut
        return (test, train, validation) if self.report == "test" else (validation, train)

    def measure(self, model: Recommender, held_out: Ratings, *known: Ratings) -> dict[str, float]:
        """Return the metrics of a model with as many users as `held_out` on its ratings."""
        with torch.inference_mode():
            if self.kind == "mse":
                device = model.item.weight.device
                predicted, _ = model(held_out.users.to(device), held_out.items.to(device))
                return rating_metrics(predicted.clamp(0.5, 5.0), held_out.values)
            return ranking_metrics(ranks(model.all_scores, held_out, *known))
