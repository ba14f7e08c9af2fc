"""What a checkpoint can hold besides objects with attributes, and how each is told apart.

A node of a checkpoint is plain JSON: a number, a text, None, or ``{"kind": ..., ...}``.
"""

import functools
import importlib
import io
import logging
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import numpy as np
from flwr.serverapp import Grid

from fedagent.errors import CheckpointError

PLAIN = frozenset({type(None), bool, int, float, str})
"""What JSON holds as it is; floats come back with the same bits, NaN and infinity too."""

SCALARS = (np.dtype, np.generic)

_LIVE = (
    types.ModuleType,
    functools._lru_cache_wrapper,
    threading.Thread,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Event,
    logging.Logger,
    io.IOBase,
    Grid,
)

Node = Any
Path = tuple[tuple[str, Any], ...] | None
"""The way from the root: ("attribute", name), ("item", key or index); None where there is none."""


class NotNow(Exception):  # noqa: N818  (no error: it passes)
    """Something is reached whose class says ``IS_PASSING``: it cannot be saved, and goes away."""


def is_live_kind(kind: type) -> bool:
    """Whether objects of a class are no state: a new process has its own, in the same place.

    Locks, threads and grids are, unless their class says by ``IS_LIVE`` what else it is.
    """
    return getattr(kind, "IS_LIVE", issubclass(kind, _LIVE))


def is_frozen(kind: type) -> bool:
    """Whether objects of a class are values: replaced, never changed."""
    return is_dataclass(kind) and bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def attributes_of(value: object) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that are state: not what is cached, and not what is ``UNSAVED``."""
    kind = type(value)
    unsaved = unsaved_of(kind)
    for name in slots_of(kind):  # type: ignore[arg-type]  # a class can be hashed
        if name not in unsaved and hasattr(value, name):
            yield name, object.__getattribute__(value, name)
    for name, attribute in list(getattr(value, "__dict__", {}).items()):
        if name not in unsaved and not is_cached(kind, name):
            yield name, attribute


def unsaved_of(kind: type) -> frozenset[str]:
    """Return the names of the attributes that a class, or one above it, leaves out."""
    return frozenset(name for base in kind.__mro__ for name in vars(base).get("UNSAVED", ()))


def is_cached(kind: type, name: str) -> bool:
    """Whether an attribute is made of others when it is asked for."""
    return isinstance(getattr(kind, name, None), functools.cached_property)


@functools.cache
def slots_of(kind: type) -> tuple[str, ...]:
    """Return the names of a class's slots."""
    names: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return tuple(name for name in names if name not in ("__weakref__", "__dict__"))


def name_of(value: Any) -> str:
    """Return ``module:name`` of a class or function."""
    return f"{value.__module__}:{value.__qualname__}"


def named(name: str) -> Any:
    """Return the class or function of a name, in a module that this process has already imported.

    Nothing is imported or called because a checkpoint says so.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    module, _, qualified = name.partition(":")
    if module == "flwr" or module.startswith("flwr."):
        importlib.import_module(module)  # Flower's own, which it imports when it needs it
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise CheckpointError(f"The checkpoint holds a {name}, which this process does not have.")
    return found


def is_importable(value: object) -> bool:
    """Whether a class or function is found again under its name."""
    name = getattr(value, "__qualname__", "<")
    if "<" in name or getattr(value, "__module__", None) is None:
        return False
    try:
        return named(name_of(value)) is value
    except CheckpointError:
        return False
