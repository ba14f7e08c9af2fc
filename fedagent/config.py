"""From a Hydra override string to objects: the same on a laptop, a server and a device."""

import copy
import difflib
import inspect
import shlex
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fedagent.errors import ConfigurationError
from fedagent.tasks.task import Task

_UNREPORTED = {"output_dir", "runtime", "display", "monitor"}


def compose(overrides: str, config_dir: Path) -> DictConfig:
    """Return the configuration that a string such as ``"strategy=fedasync seed=3"`` describes.

    Parameters
    ----------
    overrides : Hydra overrides, separated by spaces, quoted as in a shell.
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
    words = shlex.split(overrides)
    try:
        with _hydra(config_dir):
            cfg = hydra.compose("config", words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(_explain(error, words, config_dir)) from error
    choices = {k: v for k, v in cfg.hydra.runtime.choices.items() if not k.startswith("hydra")}
    parsed = OverridesParser.create().parse_overrides(words)
    values = {o.key_or_group: o.value() for o in parsed}
    with open_dict(cfg):
        del cfg["hydra"]
        cfg.about = {
            key: value
            for key, value in {**choices, **values}.items()
            if key not in _UNREPORTED and not key.startswith("monitor.") and value is not None
        }
        cfg.about.seed = cfg.seed
    return cfg


def instantiate(node: Any, **objects: Any) -> Any:
    """Build what a configuration node and further arguments describe; the only place that does.

    Raises
    ------
    ConfigurationError
        If a value cannot work, in the words of whatever refused it.
    """
    _check_types(node)
    try:
        # Objects go to the finished partial: Hydra would take dataclasses apart into nodes.
        built = hydra.utils.instantiate(node, _convert_="all", _partial_=bool(objects))
        return built(**objects) if objects else built
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigurationError):
            raise cause from error
        raise ConfigurationError(str(error)) from error


def _check_types(node: Any) -> None:
    """Refuse scalars of the wrong type by name, before they fail somewhere inside a constructor."""
    if not isinstance(node, DictConfig):
        return
    hints = _parameter_types(node["_target_"]) if "_target_" in node else {}
    for key, value in node.items():
        name = str(key)
        if isinstance(value, DictConfig):
            _check_types(value)
            continue
        if isinstance(value, ListConfig):
            for element in value:
                _check_types(element)
            continue
        allowed = typing.get_args(hints.get(name)) or (hints.get(name, object),)
        if float in allowed:
            allowed = (*allowed, int)
        scalars = {bool, int, float, str, type(None)}
        if set(allowed) <= scalars and type(value) not in allowed:
            expected = " or ".join(t.__name__ for t in allowed if t is not type(None))
            raise ConfigurationError(
                f"{name}={value!r} must be {expected} ({node['_target_']} says so)."
            )


@lru_cache
def _parameter_types(target: str) -> dict[str, Any]:
    try:
        described = hydra.utils.get_object(target)
    except (ImportError, ValueError):
        return {}  # instantiate says what is wrong with it
    if isinstance(described, type):
        described = inspect.getattr_static(described, "__init__")
    return typing.get_type_hints(described)


def build_task(cfg: DictConfig) -> Task:
    """Return the application of a configuration, built once per process."""
    OmegaConf.resolve(cfg.app)
    return _build_task(OmegaConf.to_yaml(cfg.app), OmegaConf.to_yaml(cfg.fleet, resolve=True))


@lru_cache(maxsize=2)
def _build_task(app: str, fleet: str) -> Task:
    node = OmegaConf.create(app)
    # A task that asks gets the fleet's speeds, and draws them if its partition needs them: a
    # million nodes take many seconds, in every process.
    asks = "seconds_per_step" in _parameter_types(str(OmegaConf.select(node, "_target_")))
    speeds = instantiate(OmegaConf.create(fleet)).all_seconds_per_step
    task = instantiate(node, **({"seconds_per_step": speeds} if asks else {}))
    assert isinstance(task, Task), f"app must describe a Task, not a {type(task).__name__}"
    return task


@contextmanager
def _hydra(config_dir: Path) -> Iterator[None]:
    """Initialise Hydra's global state; inside a Hydra job, put the job's back afterwards."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def choices(config_dir: Path) -> dict[str, list[str]]:
    """Return the config groups of a folder and what each offers."""
    groups: dict[str, list[str]] = {}
    for path in sorted(config_dir.rglob("*.yaml")):
        if path.parent != config_dir:
            group = path.parent.relative_to(config_dir).as_posix()
            groups.setdefault(group, []).append(path.stem)
    return groups


def _explain(error: Exception, words: list[str], config_dir: Path) -> str:
    """Say what is wrong with the overrides, and what would be right."""
    message = str(error).strip()
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        message = f"{message} {str(error.__cause__).splitlines()[0]}"
    known = sorted({*choices(config_dir), *_keys(config_dir, words)})
    for word in words:
        key = word.lstrip("+~").split("=")[0]
        if key not in known:
            close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(close)}?"
                if close
                else (f"there are: {', '.join(k for k in known if '.' not in k)}.")
            )
            return f"{key!r} is not a setting: {hint}\n({message})"
    return message


def _keys(config_dir: Path, words: list[str]) -> list[str]:
    """Return every key, dotted, of the configuration with the groups' choices among `words`."""
    groups = choices(config_dir)
    chosen = [word for word in words if word.split("=")[0] in groups]
    with _hydra(config_dir):
        try:
            cfg = hydra.compose("config", chosen)
        except (HydraException, OmegaConfBaseException):  # a choice is what is wrong
            cfg = hydra.compose("config")

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return [prefix]
        return [prefix] * bool(prefix) + [
            key
            for name, child in node.items()
            for key in walk(child, f"{prefix}.{name}" if prefix else str(name))
        ]

    return walk(OmegaConf.to_container(cfg, resolve=False), "")
