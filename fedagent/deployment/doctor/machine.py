"""Checks of this machine: versions, ports, disk, memory, GPU."""

import errno
import os
import shutil
import socket
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from fedagent.deployment.doctor.finding import Finding
from fedagent.formatting import size

# A ClientApp process that has imported torch takes about 0.5 GB, and every message starts one.
MEMORY_NEEDED, MEMORY_SCARCE = 0.5e9, 2e9
DISK_NEEDED, DISK_SCARCE = 0.2e9, 2e9
PACKAGES = ("flwr", "torch")


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Check that this Python can run fedagent."""
    text = ".".join(map(str, version))
    if version >= (3, 11):
        return Finding("python", "ok", text)
    return Finding("python", "broken", f"{text} is too old", "Install Python 3.11 or newer.")


def check_package(name: str, installed: str | None, needed: str) -> Finding:
    """Check that the `installed` version of a package, None if there is none, is one `needed`.

    Parameters
    ----------
    needed : a version specifier such as ">=1.41,<2".
    """
    requirement = Requirement(f"{name}{needed}")
    fix = f"pip install '{requirement}'"
    if installed is None:
        return Finding(name, "broken", "not installed", fix)
    if requirement.specifier.contains(installed, prereleases=True):
        return Finding(name, "ok", installed)
    return Finding(name, "broken", f"{installed} does not fit {needed}", fix)


def check_packages() -> list[Finding]:
    """Check the versions of what fedagent needs most, against its own requirements."""
    try:
        requirements = [Requirement(text) for text in metadata.requires("fedagent") or ()]
    except metadata.PackageNotFoundError:
        return [
            Finding(
                "fedagent",
                "warning",
                "imported from a folder, not installed",
                "pip install . in the folder of fedagent's pyproject.toml.",
            )
        ]
    needed = {r.name: str(r.specifier) for r in requirements if r.marker is None}
    return [check_package(name, _installed(name), needed.get(name, "")) for name in PACKAGES]


def check_gpu(has_driver: bool | None = None) -> Finding:
    """Check whether torch can use a GPU; having none is fine, having one in vain is not.

    Parameters
    ----------
    has_driver : whether an NVIDIA driver is loaded; by default looked up.
    """
    import torch  # noqa: PLC0415  (slow, and the other checks must work without it)

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())}
        return Finding("gpu", "ok", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}")
    if torch.backends.mps.is_available():
        return Finding("gpu", "ok", "Apple GPU (mps)")
    if has_driver if has_driver is not None else Path("/proc/driver/nvidia/version").exists():
        return Finding(
            "gpu",
            "warning",
            f"an NVIDIA driver is loaded, but torch {torch.__version__} cannot use it",
            "Install a torch build with CUDA that suits the driver (nvidia-smi names its version); "
            "in a container, pass the GPU through.",
        )
    return Finding("gpu", "ok", "none; training uses the CPU")


def check_port(port: int, host: str = "127.0.0.1") -> Finding:
    """Check that a process started here could listen on `port`."""
    name = f"port {port}"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                return Finding(
                    name, "broken", "this user may not listen on it", "Choose a --port above 1023."
                )
            if error.errno != errno.EADDRINUSE:
                return Finding(
                    name,
                    "broken",
                    f"{host}: {error.strerror}",
                    "Choose an address of this machine.",
                )
        else:
            return Finding(name, "ok", "free")
    if _is_flower(host, port):
        return Finding(
            name,
            "warning",
            "a Flower process listens on it",
            f"Nothing, if it is yours; to start another, give it another --port than {port}.",
        )
    return Finding(
        name,
        "broken",
        "another program listens on it",
        f"Find it (ss -ltnp | grep {port}) and stop it, or start Flower with another --port.",
    )


def check_disk(folder: Path, free_bytes: float | None = None) -> Finding:
    """Check the free space where `folder` is, or `free_bytes` if given."""
    if free_bytes is None:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free_bytes = shutil.disk_usage(there).free
    return _enough(
        "disk",
        f"{size(free_bytes)} free at {folder.absolute()}",
        free_bytes,
        (DISK_NEEDED, DISK_SCARCE),
        "Free some space, or keep results and the SuperLink's --database on a larger disk.",
    )


def check_memory(available_bytes: float | None = None) -> Finding:
    """Check the memory that processes could still get, or `available_bytes` if given."""
    available_bytes = _available_memory() if available_bytes is None else available_bytes
    if available_bytes is None:
        return Finding("memory", "not checked", "this system does not say how much is available")
    return _enough(
        "memory",
        f"{size(available_bytes)} available",
        available_bytes,
        (MEMORY_NEEDED, MEMORY_SCARCE),
        "Stop other programs or add memory: a process with torch takes about 0.5 GB.",
    )


def _enough(
    name: str, what: str, value: float, thresholds: tuple[float, float], fix: str
) -> Finding:
    needed, scarce = thresholds
    if value < needed:
        return Finding(name, "broken", f"{what}; {size(needed)} is needed", fix)
    if value < scarce:
        return Finding(name, "warning", f"{what}: scarce", fix)
    return Finding(name, "ok", what)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _available_memory() -> float | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _is_flower(host: str, port: int) -> bool:
    """Return whether a Flower process answers on the port, with or without TLS."""
    anyone = ssl.create_default_context()  # nothing is told to it: any server may answer
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    return any(
        _says_uvicorn(connection)
        for connection in (
            HTTPConnection(host, port, timeout=2),
            HTTPSConnection(host, port, timeout=2, context=anyone),
        )
    )


def _says_uvicorn(connection: HTTPConnection) -> bool:
    try:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        return reply.status == 200 and reply.getheader("server") == "uvicorn"
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
