"""The files of a folder, a .zip or a .tar.gz that a user names."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from fedagent.errors import DataUnavailableError, imported

PICTURES = (".jpg", ".jpeg", ".png")
_SUFFIXES = (*PICTURES, ".xml", ".csv", ".txt")


def files(path: Path, form: str) -> dict[str, bytes]:
    """Return the pictures and texts in `path`, by their names below it.

    Parameters
    ----------
    path : folder, .zip, .tar or .tar.gz.
    form : what should be in it, for the error.

    Raises
    ------
    DataUnavailableError
        If there is no such thing, or it is damaged.
    """
    try:
        found = dict(_entries(path))
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataUnavailableError(
            f"{path.resolve()} cannot be read ({error}); set app.path to a folder, .zip or .tar.gz "
            f"with {form}."
        ) from error
    return {name: found[name] for name in sorted(found)}


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in path.rglob("*"):
            if file.suffix.lower() in _SUFFIXES and file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.lower().endswith(_SUFFIXES):
                    yield name, archive.read(name)
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.lower().endswith(_SUFFIXES) and member.isfile():
                    file = archive.extractfile(member)
                    assert file is not None  # it is a file
                    yield member.name, file.read()


def decoded(name: str, content: bytes, path: Path) -> torch.Tensor:
    """Return a picture as (3, H, W) uint8.

    Raises
    ------
    DataUnavailableError
        If it is damaged.
    """
    pillow = imported("PIL.Image", "fedagent[detection]", "Reading pictures")
    try:
        with pillow.open(io.BytesIO(content)) as image:
            pixels = np.array(image.convert("RGB"))
    except OSError as error:
        raise DataUnavailableError(
            f"The picture {name} in {path.resolve()} is damaged ({error}); fetch it again, or take "
            "it out together with its boxes."
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
