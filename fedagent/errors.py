"""The errors fedagent raises on purpose.

    FedagentError
    ├── ConfigurationError    a value that cannot work, found before anything ran
    └── DataUnavailableError  data or a package that is not on this machine

Every message says what happened, why, and what to do about it.
"""

import difflib
import types
import typing
from collections.abc import Iterable

_SCALARS = (bool, int, float, str, type(None))


class FedagentError(Exception):
    """Base class of everything fedagent raises on purpose."""


class ConfigurationError(FedagentError, ValueError):
    """A setting that cannot work."""


class DataUnavailableError(FedagentError):
    """Data or a package that this machine does not have."""


def require(condition: bool, message: str) -> None:
    """Raise ``ConfigurationError(message)`` unless `condition` holds."""
    if not condition:
        raise ConfigurationError(message)


def one_of(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise a ``ConfigurationError`` that names the choices unless `value` is one of them."""
    known = tuple(choices)
    close = _resembling(str(value), known)
    hint = f" Did you mean {close}?" if close else ""
    message = f"{name}={value!r} is unknown; choose one of: {', '.join(known)}.{hint}"
    require(value in known, message)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "did you mean this or that?", or what there is at the top if nothing resembles `word`.

    Parameters
    ----------
    word : a name or a dotted key that is not known; its last part is looked for beside where it
        stands, then everywhere.
    known : names or dotted keys.
    """
    names = list(known)
    parent, dot, leaf = word.rpartition(".")
    beside = [name.rpartition(".")[2] for name in names if _parent(name) == parent]
    close = (
        _resembling(leaf, beside, parent + dot)
        or " or ".join(name for name in names if name.endswith(f".{leaf}"))
        or _resembling(word, names)
    )
    there = ", ".join(name for name in names if not _parent(name) and "/" not in name)
    return f"did you mean {close}?" if close else f"there are: {there}."


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def _resembling(word: str, known: Iterable[str], prefix: str = "") -> str:
    found = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return " or ".join(prefix + name for name in found)


def must_fit(name: str, value: object, annotation: object, where: str) -> None:
    """Raise a ``ConfigurationError`` unless `value` fits a scalar annotation.

    Parameters
    ----------
    name : of the setting.
    value : what was given.
    annotation : scalar types, ``Literal`` or a union of them, as in ``int | Literal["auto"]``; an
        integer fits ``float``. Everything fits any other annotation.
    where : the place that the annotation stands in, for the message.
    """
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if is_union else (annotation,)
    literals = [member for member in members if typing.get_origin(member) is typing.Literal]
    words = [word for literal in literals for word in typing.get_args(literal)]
    scalars = set(members) - set(literals)
    accepted = scalars | ({int} if float in scalars else set())
    if not scalars <= set(_SCALARS) or value in words or type(value) in accepted:
        return
    if words and scalars <= {type(None)}:
        one_of(name, value, words)
    expected = [*map(repr, words), *(t.__name__ for t in _SCALARS[:-1] if t in scalars)]
    raise ConfigurationError(f"{name}={value!r} must be {' or '.join(expected)} ({where} says so).")
