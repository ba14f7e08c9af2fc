"""Tiny data of the forms that users bring: dark and bright discs as nuclei and as cells."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SITES = ((64, 64, False), (80, 64, True), (72, 72, False), (96, 56, False))
"""width, height, and whether the background is bright"""


def disc(width, height, is_bright, centre, radius, colour=(200, 200, 200)):
    """Return a picture with one disc, and the box around it."""
    y, x = np.mgrid[:height, :width]
    ground, ink = (220, (90, 40, 120)) if is_bright else (10, colour)
    picture = np.full((height, width, 3), ground, np.uint8)
    picture[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2] = ink
    low, high = np.array(centre) - radius, np.array(centre) + radius + 1
    return picture, (*low.tolist(), *high.tolist())


def nuclei(folder: Path, per_site: int = 6) -> Path:
    """Write pictures of four sites, and two that are of none, with one nucleus each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with (folder / "boxes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "x0", "y0", "x1", "y1"))
        kinds = [site for site in SITES for _ in range(per_site)] + [(40, 40, False)] * 2
        for number, (width, height, is_bright) in enumerate(kinds):
            centre = rng.integers(15, 25, 2)
            picture, box = disc(width, height, is_bright, centre, int(rng.integers(6, 10)))
            Image.fromarray(picture).save(folder / f"n{number:03}.jpg", quality=95)
            table.writerow((f"n{number:03}", *box))
    return folder


def annotation(name: str, objects) -> str:
    """Return the XML of a picture's (class, box) pairs."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    inside = "".join(
        f"<object><name>{kind}</name><bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for kind, box in objects
    )
    return f"<annotation><filename>{name}.jpg</filename>{inside}</annotation>"


def voc(folder: Path, count: int = 12, test: int = 3) -> Path:
    """Write pictures of 128x96: a large cell on each, a small one on every third."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = f"cell{number:02}"
        picture, box = disc(128, 96, False, (40 + number, 40), 20)
        objects = [("large", box)]
        if number % 3 == 0:
            small, its = disc(128, 96, False, (110, 80), 8, (80, 160, 90))
            picture = np.maximum(picture, small)
            objects.append(("small", its))
        Image.fromarray(picture).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
        (folder / "Annotations" / f"{name}.xml").write_text(annotation(name, objects))
    tested = "\n".join(f"cell{number:02}" for number in range(count - test, count))
    (folder / "ImageSets" / "Main" / "test.txt").write_text(tested + "\n")
    return folder
