"""Ranks and metrics against hand-computed values and torchmetrics."""

import math

import pytest
import torch
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_normalized_dcg

from clients.recommendation.baseline import bias_only, popularity
from clients.recommendation.data import Ratings
from clients.recommendation.metrics import ranking_metrics, ranks, rating_metrics


def ratings(users, items, values=None, num_users=2, num_items=5) -> Ratings:
    values = values or [1.0] * len(users)
    return Ratings(
        torch.tensor(users), torch.tensor(items), torch.tensor(values), num_users, num_items
    )


TABLE = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 2.0, 1.0, 9.0]])


def scores(users):
    return TABLE[users].clone()


def test_an_item_is_ranked_among_those_the_user_does_not_know():
    held_out, known = ratings([0, 1], [2, 4]), ratings([0, 1], [0, 2])
    assert ranks(scores, held_out, known).tolist() == [2, 1]
    assert ranks(scores, held_out).tolist() == [3, 1]
    assert ranks(scores, held_out, known, ratings([0], [1])).tolist() == [1, 1]


def test_equal_scores_come_before_the_held_out_item():
    assert ranks(scores, ratings([1], [0])).tolist() == [5]


def test_only_some_users_may_be_ranked():
    assert ranks(scores, ratings([1], [2]), ratings([0], [2])).tolist() == [2]


def test_metrics_of_known_ranks():
    metrics = ranking_metrics(torch.tensor([1, 3, 10, 11]))
    assert metrics["hit-rate-at-10"] == 0.75
    gain = (1 + 1 / math.log2(4) + 1 / math.log2(11)) / 4
    assert metrics["ndcg-at-10"] == pytest.approx(gain)
    assert metrics["num-examples"] == 4


def test_ranking_agrees_with_torchmetrics():
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(300, 40, generator=generator)
    items = torch.randint(40, (300,), generator=generator)
    held_out = Ratings(torch.arange(300), items, torch.ones(300), 300, 40)
    ours = ranking_metrics(ranks(lambda users: table[users].clone(), held_out))
    is_held_out = torch.nn.functional.one_hot(items, 40)
    for name, theirs in (
        ("hit-rate-at-10", retrieval_hit_rate),
        ("ndcg-at-10", retrieval_normalized_dcg),
    ):
        each = [theirs(table[u], is_held_out[u], top_k=10) for u in range(300)]
        assert ours[name] == pytest.approx(float(torch.stack(each).mean()), abs=1e-6)


def test_rmse_agrees_with_torchmetrics():
    predicted, stars = torch.tensor([3.0, 4.5, 1.0]), torch.tensor([4.0, 4.0, 3.0])
    expected = float(mean_squared_error(predicted, stars, squared=False))
    assert rating_metrics(predicted, stars)["rmse"] == pytest.approx(expected)
    assert expected == pytest.approx(math.sqrt((1 + 0.25 + 4) / 3))


def test_popularity_counts_ratings():
    found = popularity(ratings([0, 1, 1], [3, 3, 0]))(torch.tensor([0, 1]))
    assert found.tolist() == [[1.0, 0.0, 0.0, 2.0, 0.0]] * 2


def test_biases_are_shrunk_means():
    train = ratings([0, 0, 1], [0, 1, 0], [5.0, 3.0, 4.0])  # mean 4
    item = [(1 + 0) / (25 + 2), -1 / (25 + 1)]
    user = [(1 - item[0] - 1 - item[1]) / (10 + 2), -item[0] / (10 + 1)]
    predicted = bias_only(train, ratings([0, 1, 1], [1, 0, 4]))
    expected = [4 + user[0] + item[1], 4 + user[1] + item[0], 4 + user[1]]
    assert predicted.tolist() == pytest.approx(expected)
