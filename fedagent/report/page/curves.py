"""The metric of rows of runs against every axis: mean and band over seeds, raw and smooth, thinned.

Between two evaluations, and after the end of a run, the last value holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedagent.report.compare import Row
from fedagent.report.figure import mean_and_band
from fedagent.report.page.data import AXES, Floats, PageRun, Points

MOST_POINTS = 60_000
"""How many points a page draws at most, over rows and axes, but 40 a curve at least."""
FEW_POINTS = 12
"""A curve of so few is not smoothed."""


@dataclass(frozen=True)
class Curve:
    """A row's metric against one axis. Shape legend: N points.

    Attributes
    ----------
    x, raw, smooth : (N,) the mean over seeds, and its mean over the neighbouring points.
    low, high : (N,) the least and the greatest seed; None with one seed.
    reached : where the mean first is at the target; None if it never is.
    """

    x: Floats
    raw: Floats
    smooth: Floats
    low: Floats | None
    high: Floats | None
    reached: float | None


def curves_of(rows: Sequence[Row], runs: Mapping[object, PageRun]) -> list[dict[str, Curve]]:
    """Return for every row its curve against every axis.

    Parameters
    ----------
    rows : with a run each at least whose metric has a value.
    runs : folder -> what is known of it.
    """
    most = max(40, min(600, MOST_POINTS // (len(AXES) * max(1, len(rows)))))
    known = [(row, [runs[run.directory].curve for run in row.drawn if run.curve]) for row in rows]
    return [{axis: _curve(points, row, axis, most) for axis in AXES} for row, points in known]


def smoothed(values: Floats) -> Floats:
    """Return the (N,) mean of every value and its neighbours, a fifteenth of all; NaN stays NaN."""
    half = len(values) // 30 if len(values) > FEW_POINTS else 0
    half = max(half, int(len(values) > FEW_POINTS))
    if not half:
        return values
    finite = np.isfinite(values)
    totals = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    number = np.maximum(counts[last] - counts[first], 1)
    return np.where(finite, (totals[last] - totals[first]) / number, np.nan)


def thinned(count: int, most: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return at most `most` of the places 0 to `count` - 1, evenly, the first and the last kept."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.intp))


def _curve(points: Sequence[Points], row: Row, axis: str, most: int) -> Curve:
    low = high = None
    known = [p for p in points if len(p)]
    if len(known) == 1:
        x, raw = known[0].x[axis], known[0].y
    else:
        pairs = [list(zip(p.x[axis].tolist(), p.y.tolist(), strict=True)) for p in known]
        x, raw, low, high = mean_and_band(pairs)
    smooth = smoothed(raw)
    kept = thinned(len(x), most)
    return Curve(
        x[kept],
        raw[kept],
        smooth[kept],
        None if low is None else low[kept],
        None if high is None else high[kept],
        _reached(x, raw, row),
    )


def _reached(x: Floats, raw: Floats, row: Row) -> float | None:
    target, metric = row.experiment["target"], row.drawn[0].metric
    if target is None:
        return None
    is_there = raw >= target if metric.mode == "max" else raw <= target
    return float(x[np.argmax(is_there)]) if is_there.any() else None
