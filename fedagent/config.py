"""From a Hydra override string to objects: the same on a laptop, a server and a device."""

import copy
import inspect
import shlex
import typing
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fedagent.errors import ConfigurationError, must_fit, require, suggestion

if TYPE_CHECKING:
    from fedagent.tasks.task import Task  # brings PyTorch, which a look at a configuration spares

BASE = "base"
"""The folder of a group whose files the group's choices share; they are no choices themselves."""
_FILES = {"output_dir", "overwrite", "resume", "checkpoint"}
_UNREPORTED = _FILES | {"runtime", "display", "monitor", "showcase", "baseline", "page", "live"}


def compose(overrides: str, config_dir: Path) -> DictConfig:
    """Return the configuration that a string such as ``"strategy=fedasync seed=3"`` describes.

    Parameters
    ----------
    overrides : Hydra overrides, separated by spaces, quoted as in a shell; flags that begin with
        ``--config-`` may stand among them.
    config_dir : the folder with config.yaml.

    Returns
    -------
    The configuration, plus ``about``: the choice made in every group and every other override,
    which is what names a run in a report.

    Raises
    ------
    ConfigurationError
        If an override does not fit; the message names what would.
    """
    return copy.deepcopy(_composed(overrides, config_dir.resolve()))


@lru_cache(maxsize=2)  # the workers of a simulation are forked with what its server has composed
def _composed(overrides: str, config_dir: Path) -> DictConfig:
    try:
        asked = parse_arguments(shlex.split(overrides))
    except ValueError as error:
        raise ConfigurationError(f"overrides={overrides!r} cannot be read: {error}.") from error
    for flag in flags(asked):
        require(flag.startswith("--config-"), f"{flag} is for `fedagent run`, not for overrides.")
    source, words = Source.named_by(asked, config_dir), asked.overrides
    try:
        parsed = OverridesParser.create().parse_overrides(words)
        cfg = source.compose(words)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigurationError(source.explain(error, words)) from error
    chosen = {k: v for k, v in cfg.hydra.runtime.choices.items() if not k.startswith("hydra")}
    if any(BASE in str(choice).replace("'", "/").split("/") for choice in chosen.values()):
        shared = ConfigurationError(f"What lies in a folder {BASE} is part of choices, and none.")
        raise ConfigurationError(source.explain(shared, words))
    source.check_plain(parsed)
    values = {o.key_or_group: o.value() for o in parsed if not o.is_hydra_override()}
    with open_dict(cfg):
        del cfg["hydra"]
        cfg.about = {
            key: value
            for key, value in {**chosen, **values, "seed": cfg.seed}.items()
            if key.split(".")[0] not in _UNREPORTED and value not in (None, "none")
        }
    return cfg


def instantiate(node: Any, **objects: Any) -> Any:
    """Build what a configuration node and further arguments describe; the only place that does.

    Raises
    ------
    ConfigurationError
        If a value cannot work, in the words of whatever refused it.
    """
    try:
        check(node)
        # Objects go to the finished partial: Hydra would take dataclasses apart into nodes.
        built = hydra.utils.instantiate(node, _convert_="all", _partial_=bool(objects))
        return built(**objects) if objects else built
    except TypeError as error:
        raise ConfigurationError(f"{node['_target_']} was given a wrong type: {error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__
        if isinstance(cause, ConfigurationError):
            raise cause from error
        raise ConfigurationError(_brief(error)) from error


def check(node: Any, *, follow: bool = True) -> None:
    """Raise a ``ConfigurationError`` unless all scalars in `node` are what annotations allow.

    Otherwise they would fail inside a constructor. What interpolations bring is checked too, unless
    `follow` is false.
    """
    if isinstance(node, ListConfig):
        for element in node._iter_ex(resolve=follow):
            check(element, follow=follow)
    if not isinstance(node, DictConfig):
        return
    hints = _parameter_types(node["_target_"]) if "_target_" in node else {}
    keys: list[Any] = list(node)
    for key in keys:
        if OmegaConf.is_interpolation(node, key) and not follow:
            continue
        name = node._get_full_key(key)
        require(not OmegaConf.is_missing(node, key), f"Missing mandatory value: {name}=VALUE.")
        value = node[key]
        if isinstance(value, DictConfig | ListConfig):
            check(value, follow=follow)
        elif key in hints:
            must_fit(name, value, hints[key], node["_target_"])


@lru_cache
def _parameter_types(target: str) -> dict[str, Any]:
    try:
        described = hydra.utils.get_object(target)
    except (ImportError, ValueError):
        return {}  # instantiate says what is wrong with it
    if isinstance(described, type):
        described = inspect.getattr_static(described, "__init__")
    try:
        return typing.get_type_hints(described)
    except NameError:  # some are for type checkers only, and describe no scalars
        annotations = inspect.get_annotations(described)
        return {name: hint for name, hint in annotations.items() if not isinstance(hint, str)}


def build_task(cfg: DictConfig) -> "Task":
    """Return the application of a configuration, built once per process."""
    OmegaConf.resolve(cfg.app)
    return _build_task(OmegaConf.to_yaml(cfg.app), OmegaConf.to_yaml(cfg.fleet, resolve=True))


@lru_cache(maxsize=2)
def _build_task(app: str, fleet: str) -> "Task":
    from fedagent.tasks.task import Task  # noqa: PLC0415

    node = OmegaConf.create(app)
    # A task that asks gets the fleet's speeds, and draws them if its partition needs them: a
    # million nodes take many seconds, in every process.
    asks = "seconds_per_step" in _parameter_types(str(OmegaConf.select(node, "_target_")))
    speeds = instantiate(OmegaConf.create(fleet)).all_seconds_per_step
    task = instantiate(node, **({"seconds_per_step": speeds} if asks else {}))
    assert isinstance(task, Task), f"app must describe a Task, not a {type(task).__name__}"
    return task


def parse_arguments(words: Sequence[str]) -> Namespace:
    """Return Hydra's flags and the overrides among `words`, told apart by Hydra's own parser.

    A flag that is unknown, or without a value that it takes, is a ``ConfigurationError``.
    """

    def refuse(message: str) -> NoReturn:
        raise ConfigurationError(f"{message}; `fedagent run --hydra-help` lists Hydra's flags.")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(words)


def flags(asked: Namespace) -> list[str]:
    """Return the words that ask for the same flags, without the overrides."""
    return [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in vars(asked).items()
        if value and name != "overrides"
    ]


@dataclass(frozen=True)
class Source:
    """Where configurations come from: the primary one's folder, further ones, and its name."""

    folders: tuple[Path, ...]
    name: str

    @classmethod
    def named_by(cls, asked: Namespace, config_dir: Path) -> "Source":
        """Return `config_dir`, unless flags name something else."""
        folders = [Path(asked.config_path or config_dir)]
        folders += [Path(asked.config_dir)] if asked.config_dir else []
        name = str(asked.config_name or "config").removesuffix(".yaml")
        for folder in folders:
            require(folder.is_dir(), f"{folder} is no folder; name one with configurations.")
        offered = [path.stem for folder in folders for path in sorted(folder.glob("*.yaml"))]
        require(name in offered, f"{folders[0]} has no {name}.yaml; {suggestion(name, offered)}")
        folders.sort(key=lambda folder: not (folder / f"{name}.yaml").is_file())
        return cls(tuple(folder.resolve() for folder in folders), name)

    def compose(self, words: Sequence[str]) -> DictConfig:
        """Return Hydra's configuration, its own part included; a running Hydra job goes on."""
        further = [f"hydra.searchpath=['file://{folder}']" for folder in self.folders[1:]]
        outer = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            with hydra.initialize_config_dir(str(self.folders[0]), version_base="1.3"):
                return hydra.compose(self.name, [*further, *words], return_hydra_config=True)
        finally:
            GlobalHydra.instance().hydra = outer

    def keys(self, words: Sequence[str]) -> list[str]:
        """Return every key, dotted, of the configuration with the groups' choices in `words`."""
        groups = choices(*self.folders)
        try:
            cfg = self.compose([word for word in words if word.split("=")[0] in groups])
        except (HydraException, OmegaConfBaseException, ValueError):  # a choice is what is wrong
            cfg = self.compose([])
        return sorted({*groups, *_dotted(OmegaConf.to_container(cfg, resolve=False))})

    def explain(self, error: Exception, words: Sequence[str]) -> str:
        """Say in a line or two what is wrong with the overrides, and what would be right."""
        groups = choices(*self.folders)
        try:
            known = self.keys(words)
        except HydraException:  # the files do not fit each other, whatever the words are
            return _brief(error)
        for word in sorted(words, key=lambda word: word.split("=")[0] not in groups):
            if found := _wrong(word, known, groups):
                return found
        return _brief(error)

    def check_plain(self, overrides: Sequence[Override]) -> None:
        """Refuse another type than the primary configuration gives its numbers and switches."""
        primary = OmegaConf.load(self.folders[0] / f"{self.name}.yaml")
        defaults = OmegaConf.to_container(primary, resolve=False)
        for override in overrides:
            key, value = override.key_or_group, override.value()
            default = defaults.get(key) if isinstance(defaults, dict) else None
            is_told = value is not None and not str(value).startswith("${")
            if is_told and isinstance(default, bool | int | float):
                must_fit(key, value, type(default), f"{self.name}.yaml")


def choices(*folders: Path) -> dict[str, list[str]]:
    """Return the config groups of folders and what each offers."""
    groups: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            group = path.parent.relative_to(folder)
            if group.parts and BASE not in group.parts:
                groups.setdefault(group.as_posix(), []).append(path.stem)
    return groups


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    for name, child in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{name}"
        yield from _dotted(child, f"{prefix}{name}.")


def _brief(error: Exception) -> str:
    """Return what Hydra and OmegaConf say, without search path and object types."""
    lines = [*str(error).split("\n"), *str(error.__cause__ or "").split("\n")[:1]]
    said = takewhile(lambda line: not line.startswith("Config search path"), lines)
    return " ".join(line.strip() for line in said if line and "object_type" not in line)


def _wrong(word: str, known: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str | None:
    """Return what to say of a word that names no setting, or a choice that is not offered."""
    try:
        override = OverridesParser.create().parse_overrides([word])[0]
    except HydraException as error:
        key = word.lstrip("+~")
        if "=" not in word:
            hint = f"write {key}=VALUE." if key in known else suggestion(key, known)
            return f"{word} is not KEY=VALUE; {hint}"
        reason = str(error).split("\n", maxsplit=1)[0]
        return f"{word} cannot be read ({reason}); close what is open, quote what is special."
    key = override.key_or_group
    if override.is_sweep_override():
        return f"{word} names several values; sweep with -m, or write a list: {key}=[a,b]."
    if key not in known and "/" not in key and not (override.is_add() or override.is_force_add()):
        return f"{key!r} is not a setting; {suggestion(key, known)}"
    value = override.value()
    for choice in value if isinstance(value, list) else [value]:
        if key in groups and choice not in groups[key] and not override.is_delete():
            return f"{word} is no choice; {suggestion(str(choice), groups[key])}"
    return None
