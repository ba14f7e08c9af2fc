"""What a run was begun with, kept beside its checkpoints, so that it goes on as the same run."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fedagent.errors import ConfigurationError, require
from fedagent.report.files import replacing

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints, in its output folder."""
CHANGEABLE = ("stopping", "runtime", "checkpoint", "display", "monitor", "page", "live")
"""The settings that may change when a run goes on: when it ends, who does the work, who watches."""
_WORDS = "overrides.txt"
_OF_ONE_START = ("output_dir", "overwrite", "resume")


def remember_words(folder: Path, words: str) -> None:
    """Write down the overrides that a run in `folder` was begun with, flags among them.

    Raises
    ------
    OutputError
        If the disk does not take them.
    """
    with replacing(folder / CHECKPOINTS / _WORDS) as temporary:
        temporary.write_text(words + "\n", encoding="utf-8")


def words_to_resume(folder: Path, changes: Sequence[str]) -> list[str]:
    """Return the overrides of the run in `folder` with some changes, and that it goes on.

    Raises
    ------
    ConfigurationError
        If there is no such run, or a change would make another run of it.
    """
    path = folder / CHECKPOINTS / _WORDS
    try:
        words = shlex.split(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{folder} holds no run that can go on ({path} cannot be read: {error}). A run with "
            "checkpoint=versions or checkpoint=updates leaves what is needed."
        ) from error
    changes = [change for change in changes if _key(change) not in _OF_ONE_START]
    for change in changes:
        require(
            change in words or _key(change).partition(".")[0] in CHANGEABLE,
            f"{change} cannot change in a run that goes on, as it would be another run: begin a "
            f"new one, or change {', '.join(CHANGEABLE)} only.",
        )
    new = {_key(change) for change in changes}
    kept = [w for w in words if _key(w) not in new and _key(w) not in _OF_ONE_START]
    place = str(folder.absolute())
    return [*kept, *changes, f"output_dir='{place}'", f"resume='{place}'"]


def with_earlier_words(words: Sequence[str]) -> list[str]:
    """Return the words, or, if ``resume=DIR`` is among them, those of the run that is to go on.

    Raises
    ------
    ConfigurationError
        As `words_to_resume`.
    """
    folders = [word.partition("=")[2].strip("'\"") for word in words if _key(word) == "resume"]
    if not folders or folders[-1] == "null":
        return list(words)
    return words_to_resume(Path(folders[-1]), [word for word in words if _key(word) != "resume"])


def require_same_words(folder: Path, words: str) -> None:
    """Raise unless `words` are those of the run in `folder`, but for what may change.

    Nodes of a real fleet read them too, and have no folder to look into.

    Raises
    ------
    ConfigurationError
        As `words_to_resume`; also if some are missing, and then it says all.
    """
    given = shlex.split(words)
    wanted = [word for word in words_to_resume(folder, given) if _key(word) != "output_dir"]
    require(
        {_key(word) for word in wanted} <= {_key(word) for word in given},
        f"resume={folder} needs the words that the run was begun with, since its nodes read them "
        f"too: flwr run . NAME --run-config 'overrides=\"{shlex.join(wanted)}\"'",
    )


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]
