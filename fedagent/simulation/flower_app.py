"""The Flower App in a folder: its components, and what it is configured with."""

import tomllib
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from flwr.app import UserConfig

from fedagent._flower import fused_run_config
from fedagent.errors import ConfigurationError, require
from fedagent.formatting import to_json

_OVERRIDES = "overrides"
"""The run config's key of apps that are laid out like fedagent's own: a Hydra override string."""

GROUPS = ("fleet", "links", "runtime")
"""The groups of the configuration that say how an app is simulated, not what it does."""
SETTINGS = (*GROUPS, "seed", "display", "output_dir", "overwrite")
"""What can be set for any app; one that has a setting of the same name gets it by --run-config."""


@dataclass(frozen=True)
class FlowerApp:
    """The Flower App in a folder.

    Attributes
    ----------
    serverapp, clientapp : its components, as ``"module:attribute"``.
    folder : where it is.
    config : the table ``[tool.flwr.app.config]``.
    """

    serverapp: str
    clientapp: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def found_in(cls, folder: Path) -> "FlowerApp":
        """Read ``[tool.flwr.app]`` from the folder's pyproject.toml.

        Raises
        ------
        ConfigurationError
            If the folder holds no Flower App.
        """
        try:
            project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
            app = project["tool"]["flwr"]["app"]
            components = app["components"]
            return cls(
                components["serverapp"], components["clientapp"], folder, app.get("config", {})
            )
        except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(
                f"{folder} is not a Flower App ({error!r}); change to the folder whose "
                "pyproject.toml has [tool.flwr.app.components]."
            ) from error

    @property
    def has_conf(self) -> bool:
        """Whether it is laid out like fedagent's own: conf/ decides what it does, by Hydra."""
        return _OVERRIDES in self.config and (self.folder / "conf" / "config.yaml").is_file()

    def run_config(self, overrides: Sequence[str]) -> UserConfig:
        """Return its run configuration with ``--run-config``'s `overrides`.

        Raises
        ------
        ConfigurationError
            If an override cannot be read, or names a key that the app does not have.
        """
        return fused_run_config(self.config, overrides)

    def check_words(self, words: Sequence[str], groups: Iterable[str]) -> None:
        """Refuse words that set what an app without conf/ decides itself.

        Parameters
        ----------
        words : overrides.
        groups : all groups of fedagent's own configuration.

        Raises
        ------
        ConfigurationError
            If a word sets neither the fleet nor how it is simulated, but something of the app.
        """
        of_the_app = set(groups) - set(GROUPS)
        for word in words:
            key = word.lstrip("+~").partition("=")[0]
            require(
                key not in self.config or key in SETTINGS,
                f"{key} is this app's own setting; write --run-config '{word}'.",
            )
            group = key.partition(".")[0].partition("@")[0]
            require(
                group not in of_the_app,
                f"{word}: this app decides its {group} itself, in {self.serverapp} and "
                f"{self.clientapp}; what can be set here is {', '.join(SETTINGS)}; and "
                "with --run-config what is in its pyproject.toml.",
            )


def take_run_config(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the values of ``--run-config`` among `words`, and the other words.

    Raises
    ------
    ConfigurationError
        If it stands without a value.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = _refuse  # type: ignore[method-assign]
    parser.add_argument("--run-config", action="append", default=[])
    taken, others = parser.parse_known_args(list(words))
    return taken.run_config, others


def usage(offered: Mapping[str, Sequence[str]], settings: UserConfig | None) -> str:
    """Return the help of ``fedagent run``.

    Parameters
    ----------
    offered : the groups of the configuration and their choices.
    settings : the run config of an app without conf/; None for one that Hydra configures.
    """
    groups = "\n".join(
        f"  {group:<11} {', '.join(names)}"
        for group, names in offered.items()
        if settings is None or group in GROUPS
    )
    example = "learning_rate=0.1" if settings is None else "fleet.num_nodes=50"
    return f"""Usage: fedagent run [OVERRIDES] [FLAGS]

Run the Flower App in this folder on a simulated fleet.

Groups and their choices ({"strategy=fedasync" if settings is None else "fleet=two_class"}):
{groups}

Any value can be set ({example}) and swept with -m (-m seed=1,2,3).
  --json        end with a line of JSON for scripts
  --cfg job     print the configuration and exit
  --hydra-help  Hydra's other flags
{"" if settings is None else _usage_of_run_config(settings)}"""


def _usage_of_run_config(settings: UserConfig) -> str:
    listed = "\n".join(f"  {key}={to_json(value)}" for key, value in settings.items())
    return f"""  --run-config  the app's own settings, as for flwr run: 'key=1 other="text"'

This app's settings:
{listed or "  none"}
"""


def _refuse(message: str) -> NoReturn:
    raise ConfigurationError(f"{message}; write it as for flwr run: --run-config 'lr=0.1'.")
