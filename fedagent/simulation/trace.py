"""A fleet of devices that a file describes: measured, or written by ``fedagent calibrate``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fedagent.errors import ConfigurationError, require
from fedagent.nodes.device_file import Device, parse
from fedagent.simulation.fleets import Fleet
from fedagent.simulation.profiles import NodeProfile

_KEY = (0, 2)  # behind (seed, index), which are the profile's; (seed, index, n) are job n's


@dataclass(frozen=True, kw_only=True)
class Trace(Fleet):
    """Devices of a user's CSV file: speed, bandwidth over time, and when they are there.

    Node i is the file's i-th device; nodes beyond the last one are copies, each of a device that
    (seed, i) draws. Transfers go exactly as fast as the bandwidth of each moment, and no faster
    than `links`.

    Parameters
    ----------
    path : the file; `fedagent.nodes.device_file` and docs/simulation.md say what is in it.
    seconds_per_step : a factor on the file's times, > 0.

    Raises
    ------
    ConfigurationError
        If the file cannot be read or something in it cannot be, with its line and column; if both
        the file and `reliability` say when nodes are online.
    """

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        reliability = self.reliability
        has_windows = reliability.online_fraction < 1.0 and math.isfinite(reliability.period_s)
        require(
            all(device.is_always_online for device in self.devices) or not has_windows,
            f"Trace: {self.path} has a column online, and reliability.period_s="
            f"{reliability.period_s:g} says otherwise; keep one of them.",
        )

    @cached_property
    def devices(self) -> Sequence[Device]:
        """What the file describes, in its order."""
        try:
            text = Path(self.path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"Trace: {self.path} cannot be read ({error}); name a CSV file of devices, such as "
                "`fedagent calibrate` writes."
            ) from error
        return parse(text, self.path)

    def device(self, index: int) -> Device:
        """Return the device that node `index` is, 0 <= index < num_nodes."""
        if index < len(self.devices):
            return self.devices[index]
        drawn = np.random.default_rng([self.seed, index, *_KEY]).integers(len(self.devices))
        return self.devices[int(drawn)]

    def relative_time(self, index: int, generator: np.random.Generator) -> float:
        """Return the written time."""
        return self.device(index).seconds_per_step

    def profile(self, index: int) -> NodeProfile:
        """Return the profile of node `index`, whose links are its device's."""
        path, device = super().profile(index), self.device(index)
        return replace(
            path,
            downloads=device.downloads.capped(path.download_bytes_per_s),
            uploads=device.uploads.capped(path.upload_bytes_per_s),
            presence=None if device.is_always_online else device.presence,
        )

    @property
    def is_always_online(self) -> bool:
        """Whether no node ever leaves."""
        used = self.devices[: self.num_nodes]
        return super().is_always_online and all(device.is_always_online for device in used)
