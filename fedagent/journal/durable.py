"""Files that are never half written, and one clear error when they cannot be written at all."""

import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

from safetensors import SafetensorError

from fedagent.errors import OutputError
from fedagent.formatting import size


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make one `OutputError` of whatever keeps the block from writing `path`."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"{path} cannot be written: {reason} ({_room(path)}); make room or get permission "
            "there, or choose another folder."
        ) from None


def write(parts: Iterable[memoryview], path: Path) -> None:
    """Make a file of bytes, which the disk need not have yet."""
    with path.open("wb") as file:
        file.writelines(parts)


def checksum(parts: Iterable[bytes | memoryview]) -> int:
    """Return the CRC-32 of bytes in a row."""
    return reduce(lambda before, part: zlib.crc32(part, before), parts, 0)


def flush(path: Path) -> None:
    """Have the disk take a file, or a folder's list of files, before anything else happens."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _room(path: Path) -> str:
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    return f"{size(shutil.disk_usage(there).free)} free in {there}"
