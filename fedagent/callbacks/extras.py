"""Packages that only some users need."""

from importlib import import_module
from typing import Any

from fedagent.errors import ConfigurationError


def imported(module: str, extra: str, user: str) -> Any:
    """Return `module`, which comes with fedagent's `extra`, for `user`.

    Raises
    ------
    ConfigurationError
        If it is not installed; the message says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{user} needs a package that is not here ({error}): pip install 'fedagent[{extra}]'"
        ) from error
