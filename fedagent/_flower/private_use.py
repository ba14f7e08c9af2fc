"""Private names of Flower: what they are used for, and what happens without them.

Flower promises nothing about these names, and may drop one with any release. So each is looked up
before it is used. Where one is gone, the public way takes over, at the price that its use names;
where there is no public way, the error says which version to install. ``fedagent doctor`` shows
every use.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module, metadata
from operator import attrgetter
from typing import Any

from packaging.version import Version

from fedagent.errors import FedagentError

CHECKED_VERSIONS = ("1.41.0", "1.42.0")
"""The versions of Flower with which every name was checked, by ``tests/_flower``."""

logger = logging.getLogger("flwr.fedagent")

Holder = Callable[[Any], object]


@dataclass(frozen=True)
class PrivateName:
    """A name that Flower may change without notice.

    Parameters
    ----------
    module : the module to import.
    name : an attribute of it; dots lead further down.
    holder : the object in the module whose attribute it is; the module itself by default.
    """

    module: str
    name: str
    holder: Holder = lambda module: module

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    def exists(self) -> bool:
        """Return whether the installed Flower has the name."""
        try:
            attrgetter(self.name)(self.holder(import_module(self.module)))
        except (ImportError, AttributeError, TypeError):
            return False
        return True


@dataclass(frozen=True)
class PrivateUse:
    """Something that fedagent does through private names.

    Parameters
    ----------
    purpose : what the names are for, as ``fedagent doctor`` calls it.
    why : the reason why the public API is not enough.
    names : all of them are needed.
    substitute : what takes over without them, and what that costs; None where nothing can.
    """

    purpose: str
    why: str
    names: tuple[PrivateName, ...]
    substitute: str | None = None

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The names that the installed Flower does not have."""
        return tuple(str(name) for name in self.names if not name.exists())

    @property
    def is_possible(self) -> bool:
        """Whether the installed Flower has every name."""
        return not self.missing

    def require(self) -> None:
        """Raise `FedagentError` unless the installed Flower has every name."""
        if self.missing:
            raise self.unsupported(f"it has no {', '.join(self.missing)}")

    def unsupported(self, problem: str) -> FedagentError:
        """Return the error for a version of Flower that does not work as the checked ones do."""
        return FedagentError(
            f"fedagent cannot use flwr {installed_version()} for {self.purpose}: {problem}. "
            f"{self.why} {remedy()}"
        )


def installed_version() -> str:
    """Return the version of Flower that is installed."""
    return metadata.version("flwr")


def is_checked() -> bool:
    """Return whether fedagent was checked with this release of Flower, whatever its patch level."""
    release = Version(installed_version()).release[:2]
    return any(release == Version(checked).release[:2] for checked in CHECKED_VERSIONS)


def remedy() -> str:
    """Return the way out for users of a version of Flower that lacks a name."""
    return (
        f"Install a version that fedagent was checked with: pip install "
        f"'flwr=={CHECKED_VERSIONS[-1]}'; or a newer fedagent."
    )


@cache
def announce(uses: tuple[PrivateUse, ...]) -> None:
    """Say once, in one line, where this Flower differs from the checked ones."""
    checked = " and ".join(CHECKED_VERSIONS)
    lacking = [use for use in uses if not use.is_possible]
    if lacking:
        logger.warning(
            "flwr %s lacks private names that fedagent uses (checked with %s): %s. %s",
            installed_version(),
            checked,
            "; ".join(
                f"without {', '.join(use.missing)} {use.substitute or 'no simulation can begin'}"
                for use in lacking
            ),
            remedy(),
        )
    elif not is_checked():
        logger.info(
            "fedagent was checked with flwr %s, not with %s, which has all the names that it uses.",
            checked,
            installed_version(),
        )
