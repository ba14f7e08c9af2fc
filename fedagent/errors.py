"""The errors fedagent raises on purpose.

    FedagentError
    ├── ConfigurationError    a value that cannot work, found before anything ran
    └── DataUnavailableError  data or a package that is not on this machine

Every message says what happened, why, and what to do about it.

A package that only some users need is asked for here, so that a missing one is named with its pip
line: `imported` for its code, `installed` for its files.
"""

from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any


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


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ``ConfigurationError`` that names the choices unless `value` is one of them."""
    require(value in choices, f"{name}={value!r} is unknown; choose one of: {', '.join(choices)}.")


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
