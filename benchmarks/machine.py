"""What every benchmark prints beside its results: hardware, versions, configuration, seeds."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

DISTRIBUTIONS = ("fedagent", "flwr", "torch", "numpy")


def print_result(benchmark: str, results: dict[str, Any], **about: Any) -> None:
    """Print results, and what they were measured on and with, as JSON on the last line.

    Parameters
    ----------
    benchmark : the name of the package.
    results : what was measured.
    about : the configuration: sizes, repetitions, ``seeds``, and what is particular to it.
    """
    print(json.dumps({"benchmark": benchmark, **about, **machine(), **results}))


def machine() -> dict[str, Any]:
    """Return the hardware, its load, and the versions of what ran on it."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "accelerators": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "load": [round(load, 1) for load in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version_of(name) for name in DISTRIBUTIONS},
    }


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's name, which Linux alone tells in full."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
