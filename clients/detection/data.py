"""Pictures with boxes, by name.

``digits``: scenes composed of the MNIST digits that the application `vision` reads; the sources of
test scenes are digits of their own. See `clients.detection.digits`.

``nuclei`` and ``voc``: a folder, .zip or .tar.gz that the user names; see the modules
`clients.detection.nuclei` and `clients.detection.voc`.
"""

import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch

from clients.detection import nuclei, voc
from clients.detection.boxes import Batch, Example
from clients.detection.digits import Digits
from clients.detection.pictures import Pictures
from clients.vision.data import load as load_images
from fedagent.errors import DataUnavailableError, one_of

DATASETS = ("digits", "nuclei", "voc")

logger = logging.getLogger("flwr.fedagent")


class Source(Protocol):
    """Where examples come from. Positions are those of what is dealt to nodes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""

    @property
    def channels(self) -> int:
        """Of the pictures."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the nodes, where the data has nodes of its own; then `labels` are theirs."""

    @property
    def labels(self) -> torch.Tensor:
        """(N,) what is dealt to nodes, by the label that decides to whom."""

    def shares(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the (K,) shares of the classes among the objects of these."""

    def draw(self, positions: torch.Tensor, batch_size: int) -> Iterator[Batch]:
        """Yield training batches without end; the global torch seed decides them."""

    def examine(self, positions: torch.Tensor) -> Iterator[Example]:
        """Yield what a node validates with; the same every time."""

    def test(self) -> Iterator[Example]:
        """Yield the central test split; the same every time."""

    def test_sites(self) -> list[str]:
        """Return the site of each test example; nothing where there are no sites."""


@lru_cache(maxsize=2)  # once per process; forked workers inherit it
def load(
    dataset: str, path: str | None, size: int, num_test: int, test_fraction: float, seed: int
) -> Source:
    """Return the data set; parameters are those of `DetectionTask`.

    Raises
    ------
    ConfigurationError
        If there is no such data set.
    DataUnavailableError
        If a package or a file is missing, or a file is not what it should be.
    """
    one_of("DetectionTask: dataset", dataset, DATASETS)
    if dataset == "digits":
        images = load_images()
        return Digits(images.train, images.test, size, num_test)
    if path is None:
        form = nuclei.FORM if dataset == "nuclei" else voc.FORM
        raise DataUnavailableError(
            f"app.dataset={dataset} reads files of your own; set app.path to a folder, .zip or "
            f".tar.gz with {form}. Without files there is app.dataset=digits"
        )
    collection = nuclei.read(Path(path)) if dataset == "nuclei" else voc.read(Path(path), size)
    if collection.num_broken:
        logger.warning(
            "%d boxes in %s are left out: empty, outside of their picture, or no numbers.",
            collection.num_broken, path,
        )  # fmt: skip
    return Pictures(collection, size, test_fraction, seed)
