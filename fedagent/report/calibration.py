"""From what the jobs of a run took to devices that a simulation can have.

For every node the least-squares line through its jobs,

    duration = o + c B        c: seconds per step, B: local steps

A server sees a job leave and its reply come, so the overhead o is all that does not grow with B:
transfers, latency, start-up. It is put down to the bandwidth, the same in both directions:
(bytes down + bytes up) / o. Where all jobs of a node had one size nothing tells the two apart; then
c is the whole duration over B, and the bandwidth is left open.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedagent import formatting
from fedagent.errors import require
from fedagent.nodes.courses import Course
from fedagent.nodes.device_file import UNLIMITED, Device, render
from fedagent.report.files import replacing
from fedagent.report.jobs import JOBS_FILE, Job, read_jobs
from fedagent.scheduling.cost import Cost, Costs

DEVICES_FILE = "devices.csv"
_DIGITS = 6
_LEAST_OVERHEAD = 1e-6  # of a job's duration: less is rounding


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes
    ----------
    devices : one for every node, by name.
    num_jobs : how many jobs they were measured by.
    num_with_links : how many of the devices have a bandwidth; the others' jobs had one size, or
        no overhead.
    jitter : sigma >= 0 of the logarithm of durations about the lines; 0 with one job per node.
    """

    devices: Sequence[Device]
    num_jobs: int
    num_with_links: int
    jitter: float


def calibrate(jobs: Iterable[Job]) -> Calibration:
    """Return the devices that took as long as these jobs did.

    Raises
    ------
    ConfigurationError
        If no job says how many local steps it had.
    """
    sized = [job for job in jobs if job.local_steps]
    require(
        bool(sized),
        f"No job in {JOBS_FILE} says how many local steps it had: the ClientApp decides itself. "
        "Send local-steps with every job, as fedagent's own ClientApps expect it.",
    )
    by_name: dict[str, list[Job]] = {}
    for job in sized:
        by_name.setdefault(job.node_id, []).append(job)
    devices, residuals = [], []
    for name, own in sorted(by_name.items(), key=lambda item: (len(item[0]), item[0])):
        cost = _cost(own)
        devices.append(Device(name, _rounded(cost.seconds_per_step), *_links(cost, own)))
        residuals += _residuals(cost, own)
    spare = len(sized) - len(devices)
    jitter = math.sqrt(math.fsum(r * r for r in residuals) / spare) if spare else 0.0
    num_with_links = sum(device.downloads is not UNLIMITED for device in devices)
    return Calibration(devices, len(sized), num_with_links, jitter)


def write_devices(directory: Path, output: Path | None, force: bool) -> str:
    """Write the devices that the runs in `directory` had; return what was found, to be printed.

    Parameters
    ----------
    directory : the output folder of a run, or one above several; searched deeply. Nodes of the same
        id are one device.
    output : the CSV file; None for devices.csv in `directory`.
    force : whether a file that is there already may be lost.

    Raises
    ------
    ConfigurationError
        If the runs do not tell, or the file is there already.
    OutputError
        If it cannot be written.
    """
    path = output or directory / DEVICES_FILE
    require(
        force or not path.exists(),
        f"{path} is there already; name another file with --output, or say --force to lose it.",
    )
    found = calibrate(read_jobs(directory))
    with replacing(path) as temporary:
        temporary.write_text(render(found.devices), encoding="utf-8")
    times = sorted(device.seconds_per_step for device in found.devices)
    short, median, long = map(formatting.number, (times[0], statistics.median(times), times[-1]))
    num_devices = len(found.devices)
    lines = [
        f"{num_devices:,} devices by {found.num_jobs:,} jobs: {short} to {long} seconds per step, "
        f"median {median}; bandwidth of {found.num_with_links:,}.",
    ]
    if found.num_with_links < num_devices:
        lines.append(
            "Where the bandwidth is left open, transfers count as steps. To tell them apart, "
            "calibrate runs of jobs of two sizes together, such as local_steps=4 and =32."
        )
    jitter = f" fleet.jitter={found.jitter:.2g}" if found.jitter >= 0.005 else ""
    lines += [
        f"Wrote {path}. Simulate them:",
        f"  fedagent run fleet=trace fleet.path={path} fleet.num_nodes={num_devices}{jitter}",
    ]
    return "\n".join(lines)


def _cost(jobs: Sequence[Job]) -> Cost:
    costs = Costs(ema=None)
    for job in jobs:
        costs.observe(0, job.local_steps, job.duration_s)
    cost = costs.of(0)
    assert cost is not None  # every job has a size
    return cost


def _links(cost: Cost, jobs: Sequence[Job]) -> tuple[Course, Course]:
    """Return a device's downloads and uploads."""
    num_bytes = math.fsum(job.bytes_down + job.bytes_up for job in jobs) / len(jobs)
    whole_s = math.fsum(job.duration_s for job in jobs) / len(jobs)
    if not num_bytes or cost.overhead_s <= _LEAST_OVERHEAD * whole_s:
        return UNLIMITED, UNLIMITED
    rate = Course(values=(_rounded(num_bytes / cost.overhead_s),))
    return rate, rate


def _residuals(cost: Cost, jobs: Sequence[Job]) -> list[float]:
    """Return how far the logarithms of a node's durations are from the line, without their mean."""
    lines = [cost.overhead_s + cost.seconds_per_step * (job.local_steps or 0) for job in jobs]
    off = [math.log(max(j.duration_s, 1e-9) / s) for j, s in zip(jobs, lines, strict=True)]
    mean = math.fsum(off) / len(off)
    return [value - mean for value in off]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
