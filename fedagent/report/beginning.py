"""What is known of a run when it begins, in run.json: a live view and a run that is killed need it.

Monitors are left out, as their addresses may hold passwords; so is where the files go.
"""

import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedagent.formatting import to_json
from fedagent.report.files import replacing
from fedagent.statistics import Statistics
from fedagent.stopping import Baseline, Metric

BEGINNING_FILE = "run.json"
_PRIVATE = ("monitor", "output_dir", "overwrite", "resume", "live", "page", "hydra")


def begun_with(words: str, config: Mapping[str, Any], **limits: float | None) -> dict[str, Any]:
    """Return how a run was begun, as far as others may see it.

    Parameters
    ----------
    words : the overrides, quoted as in a shell.
    config : what they make, as plain values.
    limits : where the run ends: "updates", "versions" or "seconds" on its clock; None without one.
    """
    return {
        "overrides": [word for word in shlex.split(words) if _key(word) not in _PRIVATE],
        "config": {key: value for key, value in config.items() if key not in _PRIVATE},
        "limits": limits,
    }


def write_beginning(
    directory: Path,
    statistics: Statistics,
    metric: Metric,
    target: float | None,
    baseline: Baseline | None,
    about: Mapping[str, Any],
    begun_with: Mapping[str, Any],
) -> None:
    """Write run.json into a run's folder; the parameters are those of the `Recorder`.

    Raises
    ------
    OutputError
        If the disk does not take it.
    """
    told = {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "about": about,
        "metric": {"name": metric.name, "mode": metric.mode, "source": metric.source},
        "target": target,
        "baseline": asdict(baseline) if baseline else None,
        "is_virtual": statistics.is_virtual,
        "software": software(),
        "machine": {"platform": platform.platform(), "cpu_count": os.cpu_count()},
        **begun_with,
    }
    with replacing(directory / BEGINNING_FILE) as temporary:
        temporary.write_text(to_json(told, indent=2) + "\n", encoding="utf-8")


def software() -> dict[str, str | None]:
    """Return the versions that a result may depend on; None for a package without one."""
    packages = ("flwr", "torch", "fedagent")
    return {"python": platform.python_version(), **{name: _installed(name) for name in packages}}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return None


def _key(word: str) -> str:
    return word.lstrip("+~-").partition("=")[0].partition(".")[0]
