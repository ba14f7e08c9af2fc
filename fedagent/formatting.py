"""Numbers and others' text, written for people; and JSON, written for every reader."""

import json
import math
import os
import sysconfig
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from traceback import walk_tb
from typing import Any

TIME_UNITS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
MOST_CHARACTERS = 500
"""What is kept of a text that somebody else wrote."""
SIZE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the unit that suits `seconds`, as (seconds in it, its name): 90 s, but 2 min.

    A unit is used from two of it on, because "90 s" says more than "1.5 min".
    """
    return next((unit for unit in TIME_UNITS if seconds >= 2 * unit[0]), TIME_UNITS[-1])


def size_unit(num_bytes: float) -> tuple[float, str]:
    """Return the decimal unit that suits `num_bytes`, as (bytes in it, its name)."""
    return next((unit for unit in SIZE_UNITS if num_bytes >= unit[0]), SIZE_UNITS[-1])


def number(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits, and never 1.2e+03 for 1,234."""
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e+" in text else text


def duration(seconds: float, is_virtual: bool = False) -> str:
    """Return "35.2 s", or "35.2 virtual s" for simulated time."""
    size, name = time_unit(seconds)
    return f"{number(seconds / size)} {'virtual ' if is_virtual else ''}{name}"


def size(num_bytes: float) -> str:
    """Return "4.1 MB"; 1 MB is 10**6 bytes."""
    per_unit, name = size_unit(num_bytes)
    return f"{number(num_bytes / per_unit)} {name}"


def printable(text: str, limit: int = MOST_CHARACTERS) -> str:
    r"""Return somebody else's text as one line that is safe in a log, a terminal and a label.

    What is no visible character and no space (line ends, escape sequences, marks that turn the
    direction of writing, halves of surrogate pairs) is written as Python would, such as ``\x1b``,
    so that it forges no line and moves no cursor.

    Parameters
    ----------
    text : from a client, of any length.
    limit : characters kept, more or less: of a longer text its beginning, and how long it was.
    """
    kept = text if len(text) <= limit else text[:limit]
    line = kept if kept.isprintable() else "".join(map(_visible, kept))[: 2 * limit]
    return line if kept is text else f"{line}... ({len(text):,} characters)"


def _visible(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def described(error: BaseException) -> str:
    """Return an exception's type and text as one line, see `printable`; never raises.

    An exception may refuse to say what it is, or be of a class whose name is a page long.
    """
    try:
        text = str(error)
    except BaseException as refusal:  # its author's code, too
        text = f"its text cannot be had: __str__ raised {type(refusal).__name__}"
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def place_of(error: BaseException) -> str:
    """Return "file:line" of the user's code that failed, not of a library that it called."""
    if isinstance(error, SyntaxError) and error.filename:  # which no code was running for
        return printable(f"{error.filename}:{error.lineno}")
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    own = [(file, line) for file, line in places if not file.startswith(_LIBRARIES)]
    file, line = (own or places or [("an unknown place", 0)])[-1]
    return printable(f"{file}:{line}")


_FOLDERS = {sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")}
_LIBRARIES = ("<frozen", *(f"{path}{os.sep}" for path in (*_FOLDERS, Path(__file__).parent)))


def to_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON: NaN and infinities, for which JSON has no words, become null."""
    return json.dumps(_strict(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _strict(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return str(value)
