"""Pictures in the form of Pascal VOC: ``Annotations/*.xml``, ``JPEGImages/``.

The list ``ImageSets/Main/test.txt`` is the test split where there is one. Classes are the names
that stand in the annotations, in alphabetical order.
"""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
import torch.nn.functional as F

from clients.detection.archive import PICTURES, decoded, files
from clients.detection.pictures import Collection, is_sound
from fedagent.errors import DataUnavailableError
from fedagent.tasks.partitioning import Indices

FORM = "Annotations/*.xml, JPEGImages/ and, if there is one, ImageSets/Main/test.txt"


class Annotation(NamedTuple):
    """What one file says."""

    names: list[str]
    boxes: torch.Tensor
    """(M, 4); NaN where a corner is no number"""


def read(path: Path, size: int) -> Collection:
    """Return all pictures that are annotated, shrunk so that the longer side has `size` pixels.

    Raises
    ------
    DataUnavailableError
        If `path` does not hold what the module's docstring says.
    """
    found = files(path, FORM)
    by_stem = {PurePosixPath(n).stem: n for n in found if n.lower().endswith(PICTURES)}
    annotations = {
        PurePosixPath(name).stem: _annotation(name, found[name], path)
        for name in found
        if name.endswith(".xml") and PurePosixPath(name).parent.name == "Annotations"
    }
    lacking = [stem for stem in annotations if stem not in by_stem]
    if lacking or not annotations:
        what = f"no picture for {lacking[0]}.xml" if lacking else "no Annotations/*.xml"
        raise DataUnavailableError(f"{path.resolve()} has {what}; it needs {FORM}.")
    counts = Counter(name for annotation in annotations.values() for name in annotation.names)
    classes = tuple(sorted(counts))
    images, boxes, labels, rarest, num_broken = [], [], [], [], 0
    for stem, annotation in annotations.items():
        image = decoded(by_stem[stem], found[by_stem[stem]], path)
        kept = is_sound(annotation.boxes, image)
        num_broken += int((~kept).sum())
        shrunk = _shrunk(image, size)
        factors = torch.tensor([shrunk.shape[2] / image.shape[2], shrunk.shape[1] / image.shape[1]])
        images.append(shrunk)
        boxes.append(annotation.boxes[kept] * factors.repeat(2))
        of_box = torch.tensor([classes.index(name) for name in annotation.names]).long()
        labels.append(of_box[kept])
        present = [classes[label] for label in labels[-1]]
        least = min(present, key=counts.__getitem__, default=None)
        rarest.append(classes.index(least) if least is not None else len(classes))
    return Collection(
        images,
        boxes,
        labels,
        classes=classes,
        groups=np.array(rarest, np.int64),
        num_broken=num_broken,
        test=_test_split(found, list(annotations), path),
    )


def _annotation(name: str, content: bytes, path: Path) -> Annotation:
    try:
        objects = ElementTree.fromstring(content).findall("object")
        names = [one.findtext("name", "").strip() for one in objects]
        corners = [
            [_number(one.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
            for one in objects
        ]
    except ElementTree.ParseError as error:
        raise DataUnavailableError(
            f"{name} in {path.resolve()} is no whole XML file ({error}); fetch it again, or take "
            "it out."
        ) from error
    return Annotation(names, torch.tensor(corners).reshape(-1, 4))


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")  # a broken box, which is counted


def _shrunk(image: torch.Tensor, size: int) -> torch.Tensor:
    """Return (3, H, W) uint8 with a longer side of `size`, or the picture if it is smaller."""
    longer = max(image.shape[1:])
    if longer <= size:
        return image
    shape = [max(1, round(side * size / longer)) for side in image.shape[1:]]
    small = F.interpolate(image[None].float(), shape, mode="bilinear", antialias=True)
    return small[0].round().clamp(0, 255).to(torch.uint8)


def _test_split(found: dict[str, bytes], stems: list[str], path: Path) -> Indices | None:
    """Return the positions that the list names, or None without one."""
    for name, content in found.items():
        if PurePosixPath(name).parts[-3:] == ("ImageSets", "Main", "test.txt"):
            listed = {line.split()[0] for line in content.decode().splitlines() if line.strip()}
            named = [n for n, stem in enumerate(stems) if stem in listed]
            if not named:
                raise DataUnavailableError(
                    f"{name} in {path.resolve()} names no picture that has annotations, so there "
                    "is nothing to test with; add them, or take the list out."
                )
            return np.array(named, np.int64)
    return None
