from itertools import product

import pytest

from clients.translation import TranslationTask
from clients.translation.data import load

WORDS = {"red": "rouge", "blue": "bleu", "cat": "chat", "dog": "chien", "king": "roi"}
VERBS = {"sees": "voit", "hears": "entend", "calls": "appelle"}
NODES = ("Genesis", "Exodus")


def sentences():
    """Sixty sentences whose adjective stands before the noun in one language, after in the other.

    Node, source and target of each.
    """
    nouns = [
        (f"{a} {n}", f"{WORDS[n]} {WORDS[a]}") for a in ("red", "blue") for n in list(WORDS)[2:]
    ]
    rows = [
        (
            f"the {subject[0]} {verb} the {object_[0]}.",
            f"le {subject[1]} {VERBS[verb]} le {object_[1]}.",
        )
        for subject, verb, object_ in product(nouns, VERBS, nouns)
        if subject != object_
    ]
    return [(NODES[n % 3 == 0], *row) for n, row in enumerate(rows)]


@pytest.fixture
def file(tmp_path):
    load.cache_clear()
    path = tmp_path / "pairs.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in sentences()), encoding="utf-8")
    yield path
    load.cache_clear()


@pytest.fixture
def task(file):
    return small(file)


def small(file, **settings):
    defaults = {"num_partitions": 2, "vocabulary_size": 340, "width": 32, "layers": 1, "heads": 2}
    return TranslationTask(str(file), **defaults | {"dropout": 0.0} | settings)
