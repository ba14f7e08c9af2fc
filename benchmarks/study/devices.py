"""A file of devices for ``fleet=trace``: phones on links that change, and not always there."""

import csv
from pathlib import Path

import numpy as np

from fedagent.nodes.device_file import COLUMNS
from fedagent.simulation import Phones

NUM_DEVICES = 100
PERIOD_S = 600.0  # after which every device's trace begins again
EVERY_S = 30.0  # a link's bandwidth changes so often,
SIGMA = 0.7  # by a lognormal factor
AWAY_S = 120.0  # every device is away for so long, once in a period


def write_devices(path: Path, seed: int) -> None:
    """Write a CSV file of devices, as docs/simulation.md describes it.

    Speeds and mean bandwidths are `Phones`'; that bandwidths vary and devices leave is made up.
    """
    phones = Phones(num_nodes=NUM_DEVICES, seed=seed)
    generator = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for index in range(NUM_DEVICES):
            profile = phones.profile(index)
            leaves_s = EVERY_S * int(generator.integers(int((PERIOD_S - AWAY_S) / EVERY_S)))
            for time_s in np.arange(0.0, PERIOD_S, EVERY_S):
                rate = profile.download_bytes_per_s * generator.lognormal(sigma=SIGMA)
                is_away = leaves_s <= time_s < leaves_s + AWAY_S
                step_s = profile.seconds_per_step if time_s == 0.0 else ""
                rows.writerow([index, time_s, step_s, round(rate), round(rate), int(not is_away)])
            rows.writerow([index, PERIOD_S, "", "", "", ""])
