import numpy as np
import pytest

from clients.traffic import TrafficTask
from clients.traffic.data import Counts


def small_counts(num_hours=1200, num_sensors=3):
    """A daily wave on a level that drifts, for every sensor, and some missing hours."""
    rng = np.random.default_rng(0)
    hours = np.datetime64("2024-01-01T00", "h") + np.arange(num_hours)
    wave = 100 + 50 * np.sin(2 * np.pi * np.arange(num_hours) / 24)
    level = np.zeros((num_hours, num_sensors))
    for hour in range(1, num_hours):
        level[hour] = 0.98 * level[hour - 1] + rng.normal(scale=5, size=num_sensors)
    values = (wave[:, None] + level) * np.arange(1, num_sensors + 1)
    values[rng.random(values.shape) < 0.03] = np.nan
    return Counts(tuple("abc"[:num_sensors]), hours, values.astype(np.float32))


@pytest.fixture
def task(monkeypatch):
    monkeypatch.setattr("clients.traffic.task.load", lambda *_: small_counts())
    return TrafficTask(num_partitions=3)
