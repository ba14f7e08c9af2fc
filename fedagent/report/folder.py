"""One folder, one run: what a run writes is never lost under what another one writes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from fedagent.errors import ConfigurationError, OutputError
from fedagent.journal.durable import writing
from fedagent.report.files import create
from fedagent.report.runs import METRICS_FILE, SUMMARY_FILE

CONFIG_FILE = ".hydra/config.yaml"
"""What a run writes first."""


def next_free(wanted: Path, first_file: str = CONFIG_FILE) -> Path:
    """Return the first of `wanted`, `wanted`-2, `wanted`-3 and so on that no run has, and take it.

    Of processes that ask at the same moment, each gets a folder of its own.

    Parameters
    ----------
    wanted : a made-up name; made if it is missing.
    first_file : the relative path that is created empty, to be overwritten: whoever creates it has
        the folder.

    Raises
    ------
    ConfigurationError
        If the folder cannot be written to.
    """
    wanted = wanted.absolute()
    names = (f"{wanted.name}-{number}" for number in count(2))
    with _before_anything_ran():
        for folder in chain([wanted], map(wanted.with_name, names)):
            if not _holds_run(folder) and create(folder / first_file):
                return folder
    raise AssertionError("counting never ends")


def require_free(folder: Path, overwrite: bool) -> Path:
    """Return the folder that a user has named, made and tried; an earlier run in it stays.

    Raises
    ------
    ConfigurationError
        If it holds a run and `overwrite` is false, or if it cannot be written to.
    """
    if _holds_run(folder) and not overwrite:
        raise _taken(folder)
    with _before_anything_ran(), writing(folder / METRICS_FILE):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"a byte that a full disk does not take")
    return folder


def begin(folder: Path, overwrite: bool) -> None:
    """Create the file that makes `folder` the one of this run.

    Raises
    ------
    ConfigurationError
        As `require_free`; also if another run has begun there meanwhile.
    """
    require_free(folder, overwrite)
    with _before_anything_ran():
        if not create(folder / METRICS_FILE) and not overwrite:
            raise _taken(folder)


@contextmanager
def _before_anything_ran() -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        raise ConfigurationError(str(error)) from None


def _holds_run(folder: Path) -> bool:
    return any((folder / file).exists() for file in (METRICS_FILE, SUMMARY_FILE))


def _taken(folder: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{folder} holds a run already, which another one would overwrite; choose another "
        "output_dir, or say overwrite=true to lose what is there."
    )
