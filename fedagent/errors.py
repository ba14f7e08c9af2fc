"""The errors fedagent raises on purpose.

    FedagentError
    ├── ConfigurationError    a value that cannot work, found before anything ran
    ├── DataUnavailableError  data or a package that is not on this machine
    └── RunStalledError       a run that could not go on

Every message says what happened, why, and what to do about it.
"""


class FedagentError(Exception):
    """Base class of everything fedagent raises on purpose."""


class ConfigurationError(FedagentError, ValueError):
    """A setting that cannot work."""


class DataUnavailableError(FedagentError):
    """Data or a package that this machine does not have."""


class RunStalledError(FedagentError):
    """A run in which nothing could go on."""


def require(condition: bool, message: str) -> None:
    """Raise ``ConfigurationError(message)`` unless `condition` holds."""
    if not condition:
        raise ConfigurationError(message)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ``ConfigurationError`` that names the choices unless `value` is one of them."""
    require(value in choices, f"{name}={value!r} is unknown; choose one of: {', '.join(choices)}.")
