"""Devices written down: the CSV file that `Trace` simulates and ``fedagent calibrate`` writes.

    device,time_s,seconds_per_step,download_bytes_per_s,upload_bytes_per_s,online
    a,0,0.5,250000,125000,1
    a,60,,0,,
    a,90,,,,0
    a,3600,,,,
    b,0,2,,,

A row holds from its time until the device's next row; an empty cell is as before. In a device's
first row, at time 0, it means: no limit, and online. A row with nothing but its time ends the
device's trace, which then begins again; without one the last row stays.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from fedagent.errors import ConfigurationError, require, suggestion
from fedagent.nodes.courses import Course

COLUMNS = (
    "device",
    "time_s",
    "seconds_per_step",
    "download_bytes_per_s",
    "upload_bytes_per_s",
    "online",
)
UNLIMITED, ALWAYS = Course(), Course(values=(1.0,))
_NEEDED = ("device", "seconds_per_step")
_COURSES = COLUMNS[3:]


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes
    ----------
    name : of the device, one of its own.
    seconds_per_step : of a local step, > 0.
    downloads, uploads : bytes per second over time; one period for all three.
    presence : over time, 1 while the device is online and 0 while it is not.
    """

    name: str
    seconds_per_step: float
    downloads: Course = UNLIMITED
    uploads: Course = UNLIMITED
    presence: Course = ALWAYS

    @property
    def is_always_online(self) -> bool:
        """Whether it never leaves."""
        return self.presence.is_constant


@dataclass(frozen=True)
class _Row:
    """A row as it stands: None for an empty cell. `place` is where it is, for errors."""

    place: str
    device: str
    time_s: float
    cells: dict[str, float | None]

    @property
    def is_end(self) -> bool:
        return all(value is None for value in self.cells.values())


def parse(text: str, source: str) -> list[Device]:
    """Return the devices that a text describes, in the order of their first rows.

    Parameters
    ----------
    text : CSV, as above: a head, then rows; columns in any order, those that are not needed may be
        missing. Lines that begin with # are comments.
    source : the file's name, for errors.

    Raises
    ------
    ConfigurationError
        If something cannot be; it names file, line and column, and says what would be right.
    """
    reader = csv.reader(text.splitlines())
    lines = ((reader.line_num, [cell.strip() for cell in cells]) for cells in reader)
    filled = ((n, cells) for n, cells in lines if any(cells) and not cells[0].startswith("#"))
    number, head = next(filled, (1, []))
    _check_head(head, f"{source}, line {number}")
    by_device: dict[str, list[_Row]] = {}
    for number, cells in filled:
        row = _row(head, cells, f"{source}, line {number}")
        by_device.setdefault(row.device, []).append(row)
    require(bool(by_device), f"{source} has no device; write a row for each.")
    return [_device(rows) for rows in by_device.values()]


def render(devices: Iterable[Device]) -> str:
    """Return the text that `parse` makes the same devices of."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for device in devices:
        courses = device.downloads, device.uploads, device.presence
        speed, before = _text(device.seconds_per_step), ["inf", "inf", "1"]
        for time_s in sorted({begin_s for course in courses for begin_s in course.begins_s}):
            values = [_text(course.at(time_s)) for course in courses]
            changed = ["" if v == b else v for v, b in zip(values, before, strict=True)]
            if speed or any(changed):  # a row without either would end the trace
                writer.writerow([device.name, _text(time_s), speed, *changed])
            speed, before = "", values
        if math.isfinite(period_s := device.downloads.period_s):
            writer.writerow([device.name, _text(period_s), *[""] * len(before), ""])
    return text.getvalue()


def _text(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _check_head(head: list[str], place: str) -> None:
    for name in head:
        require(name in COLUMNS, f"{place}: {name!r} is no column; {suggestion(name, COLUMNS)}")
        require(head.count(name) == 1, f"{place}: column {name} is there twice; keep one.")
    missing = [name for name in _NEEDED if name not in head]
    require(
        not missing,
        f"{place}: the head lacks {' and '.join(missing)}; the columns are {','.join(COLUMNS)}.",
    )


def _row(head: list[str], cells: list[str], place: str) -> _Row:
    require(
        len(cells) == len(head),
        f"{place}: {len(cells)} cells, but the head has {len(head)}; write a comma for each that "
        "is empty.",
    )
    named = dict.fromkeys(COLUMNS, "") | dict(zip(head, cells, strict=True))
    device = named.pop("device")
    require(bool(device), f"{place}, column device: it is empty; name the device of the row.")
    numbers = {name: _number(cell, name, place) for name, cell in named.items()}
    time_s = numbers.pop("time_s")
    return _Row(place, device, 0.0 if time_s is None else time_s, numbers)


_ALLOWED: dict[str, tuple[Callable[[float], bool], str]] = {
    "time_s": (lambda value: 0.0 <= value < math.inf, "seconds, at least 0"),
    "seconds_per_step": (lambda value: 0.0 < value < math.inf, "seconds, more than 0"),
    "download_bytes_per_s": (lambda value: value >= 0.0, "bytes per second, at least 0"),
    "upload_bytes_per_s": (lambda value: value >= 0.0, "bytes per second, at least 0"),
    "online": (lambda value: value in (0.0, 1.0), "1 (online) or 0 (not)"),
}


def _number(cell: str, column: str, place: str) -> float | None:
    if not cell:
        return None
    is_allowed, what = _ALLOWED[column]
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    require(is_allowed(value), f"{place}, column {column}: {cell!r} must be {what}.")
    return value


def _device(rows: list[_Row]) -> Device:
    """Return the device whose rows these are, as they stand in the file."""
    first = rows[0]
    require(
        first.time_s == 0.0,
        f"{first.place}, column time_s: device {first.device} begins at {first.time_s:g}; give it "
        "a row at 0 first.",
    )
    for before, row in pairwise(rows):
        require(
            before.time_s < row.time_s,
            f"{row.place}, column time_s: {row.time_s:g} does not come after {before.time_s:g}, "
            f"the row of device {row.device} before; put its rows in order, one for each time.",
        )
        require(
            before is first or not before.is_end,
            f"{before.place}: only the last row of a device may have nothing but its time, which "
            "ends the trace; fill a cell, or remove the row.",
        )
    speed = _speed(rows)
    period_s = rows.pop().time_s if len(rows) > 1 and rows[-1].is_end else math.inf
    return Device(first.device, speed, *map(partial(_course, rows, period_s), _COURSES))


def _speed(rows: list[_Row]) -> float:
    """Return the one number that all rows of a device agree on."""
    speed = rows[0].cells["seconds_per_step"]
    if speed is None:
        raise ConfigurationError(
            f"{rows[0].place}, column seconds_per_step: it is empty in the first row of device "
            f"{rows[0].device}; say how long a local step takes it."
        )
    for row in rows[1:]:
        require(
            row.cells["seconds_per_step"] in (None, speed),
            f"{row.place}, column seconds_per_step: device {row.device} has {speed:g} already; a "
            "device has one speed, so leave the cell empty. What differs from job to job is the "
            "fleet's jitter.",
        )
    return speed


def _course(rows: list[_Row], period_s: float, column: str) -> Course:
    changes = [(row.time_s, row.cells[column]) for row in rows]
    given = [(time_s, value) for time_s, value in changes if value is not None]
    if not given or given[0][0] > 0.0:
        given.insert(0, (0.0, 1.0 if column == "online" else math.inf))
    begins_s, values = zip(*given, strict=True)
    never_ends = values[-1] == 0.0 if math.isinf(period_s) else not any(values)
    what = "it would never come back" if column == "online" else "a transfer would never end"
    require(
        not never_ends,
        f"{rows[-1].place}, column {column}: device {rows[0].device} stays at 0 for ever, so "
        f"{what}; give it a later row above 0, or end its trace with a row that has nothing but a "
        "time, so that it begins again.",
    )
    return Course(begins_s, values, period_s)
