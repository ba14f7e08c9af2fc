"""A city of one's own: eleven weeks from a CSV file."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.traffic import TrafficTask
from clients.traffic.data import load
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError

WEEKS = 11


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Eleven weeks of four of Auckland's sensors, as somebody would export them."""
    counts = load()
    begin = int(np.flatnonzero(counts.hours == np.datetime64("2023-03-01T00"))[0])
    rows = slice(begin, begin + 168 * WEEKS)
    path = tmp_path_factory.mktemp("city") / "ours.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *counts.sensors[:4]])
        for hour, values in zip(counts.hours[rows], counts.values[rows, :4], strict=True):
            writer.writerow([hour, *("" if np.isnan(v) else int(v) for v in values)])
    return str(path)


def test_eleven_weeks_are_enough_to_beat_the_week_before(city):
    task = TrafficTask(dataset=city, num_partitions=4)
    torch.manual_seed(1)
    model = task.build_model()
    settings = LocalTraining(optimizer="adam", learning_rate=3e-3, local_steps=300)
    train(task, model, task.batches(None, 64), settings, torch.device("cpu"))
    found, naive = task.evaluate(model, torch.device("cpu")), task.baseline()
    assert found["mae"] < 0.95 * naive["mae"]


def test_a_sensor_that_counted_nothing_in_time_is_named(city, tmp_path):
    lines = Path(city).read_text().splitlines()
    empty = [f"{line}," for line in lines[1:]]
    path = tmp_path / "with-a-new-one.csv"
    path.write_text("\n".join([f"{lines[0]},New Street", *empty]))
    task = TrafficTask(dataset=str(path), num_partitions=5)
    with pytest.raises(ConfigurationError, match="New Street counted nothing in the train hours"):
        task.num_examples(4)


def test_the_sensors_that_a_default_leaves_out_are_counted(city):
    (said,) = TrafficTask(dataset=city, num_partitions=3).remarks()
    assert "3 of 4 sensors take part" in said
    assert "fleet.num_nodes=4" in said
