"""Nuclei under microscopes, in the form of the Data Science Bowl 2018.

Pictures and one table ``boxes.csv`` with the columns image (a picture's name without its ending),
x0, y0, x1, y1. Nobody says where a picture comes from; its size, and whether it is dark (stained
to shine) or bright, tell microscope and stain apart. Each such pair is a site. Those with fewer
than five pictures are left out. Bright pictures become their negatives: nuclei are the lighter
things everywhere.
"""

import csv
import io
import logging
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from clients.detection.archive import PICTURES, decoded, files
from clients.detection.pictures import Collection, is_sound
from fedagent.errors import DataUnavailableError

logger = logging.getLogger("flwr.fedagent")

FORM = "pictures and a boxes.csv with the columns image,x0,y0,x1,y1"
FEWEST, BRIGHT = 5, 100  # pictures of a site; mean brightness of 255


def read(path: Path) -> Collection:
    """Return all pictures of sites with enough of them.

    Raises
    ------
    DataUnavailableError
        If `path` does not hold what the module's docstring says.
    """
    found = files(path, FORM)
    tables = [name for name in found if PurePosixPath(name).name == "boxes.csv"]
    if len(tables) != 1:
        raise DataUnavailableError(
            f"{path.resolve()} holds {len(tables)} files boxes.csv; it needs {FORM}."
        )
    boxes = _boxes(found[tables[0]].decode(), path)
    names = [name for name in found if name.lower().endswith(PICTURES)]
    unknown = set(boxes) - {PurePosixPath(name).stem for name in names}
    if unknown:
        raise DataUnavailableError(
            f"boxes.csv in {path.resolve()} has boxes of {len(unknown)} pictures that are not "
            f"there, such as {min(unknown)}; it needs {FORM}."
        )
    images = [decoded(name, found[name], path) for name in names]
    sites = [_site(image) for image in images]
    counts = Counter(sites)
    chosen = [n for n, site in enumerate(sites) if counts[site] >= FEWEST]
    if len(chosen) < len(sites):
        logger.warning(
            "%d of %d pictures are left out: fewer than %d have their size and brightness.",
            len(sites) - len(chosen), len(sites), FEWEST,
        )  # fmt: skip
    ordered = tuple(sorted({sites[n] for n in chosen}, key=lambda site: (-counts[site], site)))
    of_picture = (boxes.get(PurePosixPath(name).stem, []) for name in names)
    listed = [torch.tensor(corners).reshape(-1, 4) for corners in of_picture]
    whole = [is_sound(listed[n], images[n]) for n in chosen]
    return Collection(
        [255 - images[n] if sites[n].startswith("bright") else images[n] for n in chosen],
        [listed[n][kept] for n, kept in zip(chosen, whole, strict=True)],
        [torch.zeros(int(kept.sum()), dtype=torch.int64) for kept in whole],
        classes=("nucleus",),
        groups=np.array([ordered.index(sites[n]) for n in chosen], np.int64),
        sites=ordered,
        num_broken=sum(int((~kept).sum()) for kept in whole),
    )


def _site(image: torch.Tensor) -> str:
    kind = "bright" if float(image.float().mean()) > BRIGHT else "dark"
    return f"{kind}-{image.shape[2]}x{image.shape[1]}"


def _boxes(text: str, path: Path) -> dict[str, list[list[float]]]:
    """Return the boxes of every picture."""
    found: dict[str, list[list[float]]] = {}
    for line, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        try:
            corners = [float(row[key]) for key in ("x0", "y0", "x1", "y1")]
            found.setdefault(row["image"], []).append(corners)
        except (KeyError, ValueError, TypeError) as error:
            raise DataUnavailableError(
                f"Line {line} of boxes.csv in {path.resolve()} is no box ({error!r}); it needs the "
                "columns image,x0,y0,x1,y1."
            ) from error
    return found
