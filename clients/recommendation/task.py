r"""Recommendation as a `Task`. Shape legend: B ratings, M items that were not rated for each.

bpr    L = -log sigma(score(u, i) - score(u, j))                  i rated by u, j not: i before j
bce    L = -log sigma(score(u, i)) - sum_j log(1 - sigma(score(u, j)))    rated or not
mse    L = (stars(u, i) - score(u, i))^2                          how many stars

bpr: Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", arXiv 1205.2618.
bce: He et al., arXiv 1708.05031, equation 7. All plus `regularisation` times the squared norms of
the embeddings in the batch, so that what a batch does not touch stays as it is, bit by bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from clients.recommendation.baseline import bias_only, popularity
from clients.recommendation.data import PACKAGED, Cut, Ratings, cut, load
from clients.recommendation.metrics import ranking_metrics, ranks, rating_metrics
from clients.recommendation.model import MODELS, PRIVATE, Recommender
from clients.recommendation.panel import fit_users
from clients.recommendation.sampling import Examples, Sampler
from clients.recommendation.titles import recommended, titles
from fedagent.errors import one_of, require
from fedagent.stopping import Metric
from fedagent.tasks import Metrics, Showcase, Task, check_partition_id, epochs
from fedagent.tasks.evaluation import evaluating
from fedagent.tasks.task import Part

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
    panel_steps : with which the server fits users of its own to evaluate, see `fit_users`, >= 1.
    seed : of the server's evaluation.
    """

    private: ClassVar[Sequence[str]] = (PRIVATE,)
    central: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "learning_rate": 0.003}

    # No dataclass as the other tasks: its setting `loss` is also a method's name.
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

    @property
    def baseline_name(self) -> str:  # type: ignore[override]
        """What is to beat: everybody's favourites, or stars without any taste."""
        return "biases alone" if self.kind == "mse" else "most popular"

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

    def remarks(self) -> Sequence[str]:
        """Return how many users have no node."""
        total = load(self.dataset, self.root).num_users
        if self.num_partitions == total:
            return ()
        return (
            f"{self.dataset}: {self.num_partitions:,} of {total:,} users take part, one a node; "
            f"{total - self.num_partitions:,} are left out. fleet.num_nodes={total} takes all.",
        )

    def user(self, partition_id: int) -> Cut:
        """Return one user's ratings.

        Raises
        ------
        ConfigurationError
            If there is no such partition.
        """
        check_partition_id(partition_id, self.num_partitions)
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
        for chosen in epochs(torch.arange(len(ratings)), batch_size):
            batch = sampler.batch(chosen)
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

    def measure(self, model: nn.Module, device: torch.device, partition_id: int | None) -> Metrics:
        """Return HitRate@10 and NDCG@10, or the error of predicted stars, of the held-out ratings.

        A node evaluates its own user on its validation rating. The server has no users: it fits
        some of its own to the items, from the training ratings (see `fit_users`).
        """
        assert isinstance(model, Recommender)
        if partition_id is not None:
            own = self.user(partition_id)
            return self.scores(model, own.validation, own.train)
        return self.scores(self.fitted_panel(model, device), *self.reported)

    def fitted_panel(self, model: nn.Module, device: torch.device) -> Recommender:
        """Return a model with the items of `model` and all users, fitted to them."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            panel = self.build_panel().to(device)
        shared, _ = self.split_state(model.state_dict())
        panel.load_state_dict(shared | self.split_state(panel.state_dict())[1])
        fit_users(
            panel,
            self.cut.train,
            self.loss,
            num_others=self.num_others,
            steps=self.panel_steps,
            seed=self.seed,
        )
        return panel

    def validate(self, model: nn.Module, device: torch.device) -> Metrics:
        """Return the metrics of all users' validation ratings together.

        As in `measure` the server fits users of its own. A mean over the nodes would not do: the
        mean of roots of squares is not the root of their mean.
        """
        with evaluating(model):
            return self.scores(self.fitted_panel(model, device), *self._ratings_of("validation"))

    @property
    def reported(self) -> tuple[Ratings, ...]:
        """The held-out ratings that the server reports on, and what came before them."""
        return self._ratings_of(self.report)

    def _ratings_of(self, part: str) -> tuple[Ratings, ...]:
        train, validation, test = self.cut
        return (test, train, validation) if part == "test" else (validation, train)

    def scores(self, model: Recommender, held_out: Ratings, *known: Ratings) -> Metrics:
        """Return the metrics of a model with as many users as `held_out` on its ratings."""
        if self.kind == "mse":
            device = model.item.weight.device
            predicted, _ = model(held_out.users.to(device), held_out.items.to(device))
            return rating_metrics(predicted.clamp(0.5, 5.0), held_out.values)
        return ranking_metrics(ranks(model.all_scores, held_out, *known))

    def baseline(self) -> Metrics:
        """Return the metrics of popularity, or of biases alone, on what the server reports."""
        train, (held_out, *known) = self.cut.train, self.reported
        if self.kind == "mse":
            return rating_metrics(bias_only(train, held_out), held_out.values)
        return ranking_metrics(ranks(popularity(train), held_out, *known))

    def showcase(self, model: nn.Module, device: torch.device) -> Showcase:
        """Return what the model recommends to the first user; nothing without titles."""
        names = titles(self.dataset, self.root)
        if names is None:
            return Showcase()
        scores = self.fitted_panel(model, device).all_scores(torch.tensor([0]))[0].cpu()
        rated = torch.cat([ratings.items for ratings in self.user(0)[:2]])
        return Showcase(texts={"recommended": recommended(names, scores, rated)})

    def centralised(
        self,
        train: Callable[[Task, nn.Module], object],
        device: torch.device,
        part: Part = "test",
    ) -> Metrics:
        """Return the metrics of one model with everybody's vectors, on what the server reports.

        The users are those that were trained; none are fitted.
        """
        panel = self.build_panel().to(device)
        train(self, panel)
        with evaluating(panel):
            return self.scores(
                panel, *(self.reported if part == "test" else self._ratings_of(part))
            )
