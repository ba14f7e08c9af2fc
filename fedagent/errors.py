"""The errors fedagent raises on purpose, and the checks that raise them.

    FedagentError
    ├── ConfigurationError    a value that cannot work, found before anything ran
    ├── DataUnavailableError  data or a package that is not on this machine
    ├── OutputError           a file that cannot be written, also an OSError
    ├── CheckpointError       a state that cannot be saved, or that does not fit the run
    └── RunStalledError       a run that could not go on

Every message says what happened, why, and what to do about it.

A dataclass writes what a field may hold beside the field, and checks all of them at birth:

    @dataclass(frozen=True)
    class Link:
        latency_s: Annotated[float, Interval("[0, inf)")] = 0.0
        kind: Literal["wired", "radio"] = "wired"

        def __post_init__(self) -> None:
            check_fields(self)

A package that only some users need is asked for here, so that a missing one is named with its pip
line: `imported` for its code, `installed` for its files.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

_SCALARS = (bool, int, float, str, type(None))


class FedagentError(Exception):
    """Base class of everything fedagent raises on purpose."""

    exit_status: ClassVar[int] = 2
    """What the command line ends with: 2, nothing ran; see docs/scripts.md."""


class ConfigurationError(FedagentError, ValueError):
    """A setting that cannot work."""


class DataUnavailableError(FedagentError):
    """Data or a package that this machine does not have."""


class OutputError(FedagentError, OSError):
    """A file that the disk does not take: it is full, or not ours to write to."""

    exit_status: ClassVar[int] = 1


class CheckpointError(FedagentError):
    """A run's state cannot be saved, or a checkpoint does not fit the run that is to go on."""


class RunStalledError(FedagentError):
    """A run in which nothing could go on."""

    exit_status: ClassVar[int] = 3


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
    members = _members(annotation)
    literals = [member for member in members if get_origin(member) is Literal]
    words = [word for literal in literals for word in get_args(literal)]
    scalars = set(members) - set(literals)
    accepted = scalars | ({int} if float in scalars else set())
    if not scalars <= set(_SCALARS) or value in words or type(value) in accepted:
        return
    if words and scalars <= {type(None)}:
        one_of(name, value, words)
    expected = [*map(repr, words), *(t.__name__ for t in _SCALARS[:-1] if t in scalars)]
    raise ConfigurationError(f"{name}={value!r} must be {' or '.join(expected)} ({where} says so).")


def check_type(name: str, value: object, kind: Any, remedy: str = "") -> None:
    """Raise a ``ConfigurationError`` unless `value` is of a type; a class is no instance of itself.

    Sequences and mappings are looked into. `remedy` is what to do, where the type does not say it.
    """
    found = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    wanted = " or ".join(map(_named, _members(kind))) + (remedy and f": {remedy}")
    require(_is_a(value, kind), f"{name}={found} must be {wanted}.")


def check_types(instance: Any) -> None:
    """Raise a ``ConfigurationError`` that names a dataclass's first field of another type."""
    hints = get_type_hints(type(instance))
    for field in fields(instance):
        check_type(field.name, getattr(instance, field.name), hints[field.name])


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_a(value: Any, kind: Any) -> bool:
    members, origin, inner = _members(kind), get_origin(kind), get_args(kind)
    if len(members) > 1:
        return any(_is_a(value, member) for member in members)
    if origin is Literal:
        return value in inner
    if origin is Callable:
        return callable(value) and not isinstance(value, type)
    if origin not in (Sequence, Mapping):
        return isinstance(value, {int: Integral, float: Real}.get(kind, kind))
    is_one = isinstance(value, origin) and not isinstance(value, str)
    held = (value.values() if origin is Mapping else value) if is_one else ()
    return is_one and all(_is_a(each, inner[-1]) for each in held)


def _named(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (Sequence, Mapping):
        noun = "list" if origin is Sequence else "mapping"
        return f"a {noun} of {' or '.join(map(_named, _members(inner[-1])))}"
    if kind in _SCALARS:
        return "None" if kind is type(None) else str(kind.__name__)
    return "a function" if origin is Callable else f"an instance of {kind.__name__}"


class Interval:
    """The numbers that a field may hold, in a mathematician's notation.

    NaN lies in no interval; infinity in those only that include it: ``(0, inf]``.

    Parameters
    ----------
    text : two bounds in brackets; a round one leaves its bound out, as in ``[0, 1)``.
    why : what would go wrong outside, as half a sentence for the error.
    """

    def __init__(self, text: str, why: str = "") -> None:
        self._text, self._why = text, why
        self._low, self._high = map(float, text[1:-1].split(","))
        ends = {"[": self._low, "]": self._high}
        self._ends = {ends[bracket] for bracket in (text[0], text[-1]) if bracket in ends}

    def __contains__(self, number: float) -> bool:
        return self._low < number < self._high or number in self._ends

    def check(self, name: str, value: Any, kind: object = float) -> None:
        """Raise a ``ConfigurationError`` unless `value`, of type `kind`, lies in here."""
        if get_origin(kind) is Sequence:
            for number in value:
                self.check(name, number, *get_args(kind))
            return
        wanted, noun = (Integral, "a whole number") if kind is int else (Real, "a number")
        require(isinstance(value, wanted), f"{name}={value!r} must be {noun}.")
        why = f": {self._why}" if self._why else ""
        require(value in self, f"{name}={value!r} must lie in {self._text}{why}.")


def check_fields(instance: Any) -> None:
    """Raise a ``ConfigurationError`` that names the first field outside what its type allows.

    Checked are fields of type ``Annotated[..., Interval(...)]`` (a number, or a sequence of
    numbers) and ``Literal[...]`` (one of some words). Those that may be None may be.
    """
    limits = _limits_of(type(instance))  # type: ignore[arg-type]  # a class can be hashed
    for name, (kind, allowed, is_optional) in limits.items():
        value = getattr(instance, name)
        if type(value) is kind and value in allowed:  # as usual, and quickly: profiles are many
            continue
        if value is None and is_optional:
            continue
        if isinstance(allowed, Interval):
            allowed.check(f"{type(instance).__name__}: {name}", value, kind)
        else:
            one_of(f"{type(instance).__name__}: {name}", value, allowed)


@lru_cache
def _limits_of(cls: type) -> dict[str, tuple[object, Any, bool]]:
    """Return the fields that are limited: their type, what they may hold, and whether None is."""
    limits: dict[str, tuple[object, Any, bool]] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        kind: Any = hint
        allowed: Interval | tuple[str, ...] | None = None
        if get_origin(hint) is Annotated:
            kind, *notes = get_args(hint)
            allowed = next((note for note in notes if isinstance(note, Interval)), None)
        is_union = get_origin(kind) in (Union, UnionType)
        kinds = [k for k in get_args(kind) if k is not type(None)] if is_union else [kind]
        if get_origin(kinds[0]) is Literal:
            allowed = get_args(kinds[0])
        if allowed is not None:
            limits[name] = kinds[0], allowed, is_union and len(kinds) < len(get_args(kind))
    return limits


def imported(module: str, requirement: str, user: str, instead: str | None = None) -> Any:
    """Import a module of a package that may be missing. Call it where the module is used.

    Parameters
    ----------
    module : name of the module, such as "sklearn.ensemble".
    requirement : what pip installs to bring it, such as "fedagent[plots]".
    user : what needs it, as the subject of the message.
    instead : what works without it, as an order, if anything does.

    Raises
    ------
    DataUnavailableError
        If it cannot be imported; the message has the pip line.
    """
    try:
        return import_module(module)
    except ImportError as error:
        problem = f"{module}, which cannot be imported here ({error})"
        raise _unavailable(user, problem, requirement, instead) from error


def installed(
    package: str, requirement: str, user: str, instead: str | None = None
) -> Distribution:
    """Return a package whose files are read, without importing it. Parameters as `imported` has.

    Raises
    ------
    DataUnavailableError
        If it is not installed; the message has the pip line.
    """
    try:
        return distribution(package)
    except PackageNotFoundError as error:
        problem = f"{package}, which is not installed here"
        raise _unavailable(user, problem, requirement, instead) from error


def _unavailable(
    user: str, problem: str, requirement: str, instead: str | None
) -> DataUnavailableError:
    way_out = f'pip install "{requirement}"' + (f", or {instead}" if instead else "")
    return DataUnavailableError(f"{user} needs {problem}; run: {way_out}")
