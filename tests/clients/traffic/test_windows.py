import numpy as np
import pytest
import torch

from clients.traffic.windows import CALENDAR, FIRST_ORIGIN, HORIZONS, LAGS, WINDOW, Series, calendar


def hours(start, number):
    return np.datetime64(start, "h") + np.arange(number)


def series(counts, num_training):
    return Series.of(counts, calendar(hours("2024-01-01T00", len(counts))), num_training)


@pytest.fixture
def line():
    """An hour t holds t, standardised by mean 199.5: z tells which hour it is."""
    return series(np.arange(600, dtype=np.float32), 400)


def hour_of(line, z):
    return (z * line.deviation + line.mean).round().int().tolist()


def test_an_example_is_made_of_the_hours_it_says(line):
    batch = line.examples(torch.tensor([400, 350]))
    assert hour_of(line, batch.window[0, :, 0]) == list(range(389, 401))
    assert hour_of(line, batch.targets) == [[401, 424], [351, 374]]
    by_lag = [[hour_of(line, batch.features[0, h, 2 * n]) for n in range(3)] for h in range(2)]
    assert by_lag == [[401 - 24, 401 - 168, 401 - 336], [424 - 24, 424 - 168, 424 - 336]]
    assert torch.equal(batch.features[0, 1, 6:], line.calendar[424])
    assert (batch.window.shape, batch.features.shape) == ((2, WINDOW, 2), (2, 2, 6 + CALENDAR))


def test_nothing_later_than_the_origin_is_in_what_a_forecast_is_made_from():
    counts = np.random.default_rng(1).normal(100, 10, 600).astype(np.float32)
    changed = counts.copy()
    changed[451:] = 1e6
    before, after = (series(c, 400).examples(torch.tensor([450])) for c in (counts, changed))
    assert torch.equal(before.window, after.window)
    assert torch.equal(before.features, after.features)
    assert not torch.equal(before.targets, after.targets)


def test_only_training_hours_decide_how_a_sensor_is_standardised():
    counts = np.array([1.0, 3.0, np.nan, 2.0, 1e6, 1e6], np.float32)
    found = series(counts, 4)
    assert (found.mean, found.deviation) == (2.0, pytest.approx(np.sqrt(2 / 3)))


def test_a_missing_hour_is_zero_and_says_so_wherever_it_is_seen():
    counts = np.arange(600, dtype=np.float32)
    counts[[400, 233, 424]] = np.nan
    batch = series(counts, 380).examples(torch.tensor([400]))
    assert batch.window[0, -1].tolist() == [0.0, 0.0]
    assert batch.features[0, 0, 2:4].tolist() == [0.0, 0.0], "168 hours before 401"
    assert batch.features[0, 1, 0:2].tolist() == [0.0, 0.0], "24 hours before 424"
    assert batch.is_known.tolist() == [[1.0, 0.0]]
    assert batch.targets[0, 1] == 0.0


def test_the_first_origin_is_the_first_whose_lags_all_exist():
    assert FIRST_ORIGIN + min(HORIZONS) - max(LAGS) == 0
    assert FIRST_ORIGIN >= WINDOW - 1


def test_a_sensor_that_never_changes_is_not_divided_by_zero():
    assert series(np.full(10, 7.0, np.float32), 8).z.tolist() == [0.0] * 10


def test_the_calendar_knows_time_of_day_and_weekday():
    dates = calendar(hours("2024-01-01T00", 31 * 24))  # a Monday
    assert dates.shape == (31 * 24, CALENDAR)
    assert dates[0].tolist() == [0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert dates[6, :4].tolist() == pytest.approx([1, 0, 0, -1], abs=1e-6)
    assert dates[6 * 24 + 23, 4:].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert torch.equal(dates[:24], dates[168:192])
