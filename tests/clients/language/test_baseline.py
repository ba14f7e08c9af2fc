import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from clients.language import LanguageTask
from clients.language.baseline import NGrams, contexts
from fedagent.errors import ConfigurationError


def witten_bell(texts, size, history, character):
    """The same by the letter of the formula, one number at a time."""
    if history is None:
        return 1 / size
    counts, k = Counter(), len(history)
    for text in texts:
        for place in range(k, len(text)):
            if tuple(text[place - k : place]) == history:
                counts[text[place]] += 1
    below = witten_bell(texts, size, history[1:] if k else None, character)
    total, different = sum(counts.values()), len(counts)
    if not total:
        return below
    return (counts[character] + different * below) / (total + different)


def test_it_is_what_counting_one_by_one_gives():
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, 4, 40), rng.integers(0, 4, 2), rng.integers(0, 4, 30)]
    asked = rng.integers(0, 5, 25)  # 4 never occurs
    model = NGrams(texts, 5, 3)
    told = model.probabilities(asked, 2)
    assert told.sum(1) == pytest.approx(np.ones(23))
    plain = [text.tolist() for text in texts]
    for row, place in enumerate(range(2, 25)):
        history = tuple(asked[place - 2 : place].tolist())
        expected = [witten_bell(plain, 5, history, c) for c in range(5)]
        assert told[row] == pytest.approx(expected)


def test_what_comes_before_any_history_is_told_by_the_shorter_ones():
    model = NGrams([np.array([0, 1, 0, 1, 0])], 2, 3)
    told = model.probabilities(np.array([1, 0]), 0)
    assert told[0] == pytest.approx([(3 + 2 * 0.5) / 7, (2 + 2 * 0.5) / 7])


def test_longer_histories_tell_more_of_real_roles():
    found = {n: LanguageTask(num_partitions=30, order=n).baseline() for n in (1, 2, 4)}
    bits = {n: metrics["bits-per-character"] for n, metrics in found.items()}
    assert math.log2(98) > bits[1] > bits[2] > bits[4]
    assert found[4]["top-1"] > found[2]["top-1"] > found[1]["top-1"]


@pytest.mark.parametrize("order", [0, 10])
def test_an_order_that_cannot_be_counted_is_refused(order):
    with pytest.raises(ConfigurationError, match=f"order={order} must lie in 1 to 9"):
        NGrams([np.array([0])], 2, order)


def test_contexts_are_unlike_when_they_are():
    seen = defaultdict(set)
    rng = np.random.default_rng(0)
    text = rng.integers(0, 3, 200)
    for number, place in zip(contexts(text, 4, 3), range(4, 201), strict=True):
        seen[int(number)].add(tuple(text[place - 4 : place]))
    assert all(len(histories) == 1 for histories in seen.values())
    assert len(seen) > 50
