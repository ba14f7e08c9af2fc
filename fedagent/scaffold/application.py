"""The files of a new application, and where they go."""

import keyword
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from fedagent.errors import require
from fedagent.scaffold.reference import files_for

_TAKEN = ("app", "deploy", "references")  # what stands in clients/ beside the applications
_APPLICATION = {
    "clients/$name/__init__.py": "package.py",
    "clients/$name/data.py": "data.py",
    "clients/$name/model.py": "model.py",
    "clients/$name/task.py": "task.py",
    "conf/app/$name.yaml": "app.yaml",
    "tests/clients/$name/__init__.py": None,
    "tests/clients/$name/test_${name}_task.py": "test.py",
}
_PROJECT = {"pyproject.toml": "pyproject.toml"}
_WHERE_MISSING = {
    "tests/__init__.py": None,
    "tests/clients/__init__.py": None,
    ".gitignore": "gitignore",
}
_NOT_IN_THE_WAY = ("README.md", "LICENSE", "venv")  # of a folder to start a project in


def create(name: str, folder: Path) -> list[Path]:
    """Write the application `name` into the Flower App in `folder`, or start one there.

    An empty folder becomes a project of its own: the reference app with this application as its
    default. Nothing is overwritten, and nothing written unless everything can be.

    Parameters
    ----------
    name : a Python identifier in lower case: the name of the package and of ``app=NAME``.
    folder : the app's, or one to start in; made if need be.

    Returns
    -------
    list[Path]
        The files written, relative to `folder`.

    Raises
    ------
    ConfigurationError
        If the name cannot be one or is taken, a file is in the way, or the folder holds a project
        that is laid out in another way.
    DataUnavailableError
        If the installation lacks the files that a project starts from.
    """
    _check_name(name)
    in_the_way = [f"clients/{name}", f"clients/{name}.py", f"conf/app/{name}.yaml"]
    in_the_way = [path for path in in_the_way if (folder / path).exists()]
    require(not in_the_way, f"{name!r} is taken by {', '.join(in_the_way)}; choose another name.")
    words = {"name": name, "Name": _in_camel_case(name), "title": name.replace("_", " ")}
    texts = _rendered(_APPLICATION, words)
    if (folder / "pyproject.toml").exists():
        _check_layout(folder)
    else:
        _check_empty(folder, name)
        texts |= _rendered(_PROJECT, words) | files_for(name)
    optional = _rendered(_WHERE_MISSING, words)
    texts |= {path: text for path, text in optional.items() if not (folder / path).exists()}
    existing = sorted(path for path in texts if (folder / path).exists())
    require(
        not existing,
        f"{', '.join(existing)} would be overwritten in {folder.resolve()}; move it away, or "
        "choose another name.",
    )
    for path, text in sorted(texts.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return [Path(path) for path in sorted(texts)]


def _check_name(name: str) -> None:
    require(
        re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None,
        f"{name!r} cannot be an application's name: it becomes a Python package, so use lower-case "
        "letters, digits and underscores, and begin with a letter; for example sleep_stages.",
    )
    require(
        not keyword.iskeyword(name) and name not in _TAKEN,
        f"{name!r} cannot be an application's name: it means something else already. Choose "
        "another one.",
    )


def _check_layout(folder: Path) -> None:
    missing = [p for p in ("conf/config.yaml", "clients/app.py") if not (folder / p).is_file()]
    require(
        not missing,
        f"{folder.resolve()} holds a project without {' and '.join(missing)}: `fedagent new` adds "
        "to a Flower App that is laid out like fedagent's own. Start one in an empty folder.",
    )


def _check_empty(folder: Path, name: str) -> None:
    found = sorted(
        path.name
        for path in (folder.iterdir() if folder.exists() else ())
        if not path.name.startswith(".") and path.name not in _NOT_IN_THE_WAY
    )
    require(
        not found,
        f"{folder.resolve()} is no Flower App and not empty ({', '.join(found[:3])}); to start a "
        f"project in a folder of its own, run: fedagent new {name} --folder {name}",
    )


def _in_camel_case(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _rendered(templates: Mapping[str, str | None], words: Mapping[str, str]) -> dict[str, str]:
    """Return path to text, with `words` put into both; no template makes an empty file."""
    folder = files("fedagent.scaffold") / "templates"
    texts = {}
    for path, source in templates.items():
        text = (folder / f"{source}.template").read_text(encoding="utf-8") if source else ""
        texts[Template(path).substitute(words)] = Template(text).substitute(words)
    return texts
