"""The reference Flower App: its files in this repository, or the copy that the wheel carries.

A new project starts as that app with an application of its own: the same ServerApp, ClientApp and
configuration groups. They are copied once and belong to the project from then on.
"""

import re
from pathlib import Path

from fedagent.errors import DataUnavailableError

_APPS = (
    "server/__init__.py",
    "server/app.py",
    "clients/__init__.py",
    "clients/app.py",
    "clients/references.py",
)
_OF_OUR_APPLICATIONS = ("app", "experiment", "tuned")
FLOWER_APP = "flower_app"
"""The configuration of apps that are laid out in another way."""


def files_for(application: str) -> dict[str, str]:
    """Return relative path to text: apps and configuration, with `application` as the default.

    Raises
    ------
    DataUnavailableError
        If the installation is incomplete.
    """
    root = reference_folder()
    configs = sorted(
        path.relative_to(root)
        for path in (root / "conf").rglob("*.yaml")
        if path.parent.name not in _OF_OUR_APPLICATIONS and path.stem != FLOWER_APP
    )
    names = [*_APPS, *(path.as_posix() for path in configs)]
    files = {name: (root / name).read_text(encoding="utf-8") for name in names}
    files["conf/config.yaml"] = re.sub(
        r"(?m)^(  - app: )\w+", rf"\g<1>{application}", files["conf/config.yaml"]
    )
    return files


def reference_folder() -> Path:
    """Return the folder with conf/, server/ and clients/.

    Raises
    ------
    DataUnavailableError
        If the installation is incomplete.
    """
    package = Path(__file__).parents[1]
    for root in (package / "reference", package.parent):
        if all((root / name).is_file() for name in ("conf/config.yaml", *_APPS)):
            return root
    raise DataUnavailableError(
        f"{package} lacks the files that apps and projects start from; install fedagent again: "
        "pip install --force-reinstall fedagent"
    )
