import math

import pytest

from fedagent.callbacks.progress import MOST_POINTS, Progress
from fedagent.statistics import Evaluation
from fedagent.stopping import Metric


def taken(values, *, mode="max", target=None):
    progress = Progress(Metric(mode=mode), target)
    for version, value in enumerate(values):
        progress.take(Evaluation(version, float(version), version, "server", {"accuracy": value}))
    return progress


@pytest.mark.parametrize("num_values", [1, MOST_POINTS - 1, MOST_POINTS, 10_000, 100_001])
def test_few_values_are_kept_evenly_from_the_first_to_about_the_newest(num_values):
    progress = taken(map(float, range(num_values)))
    distances = {b - a for a, b in zip(progress.curve, progress.curve[1:], strict=False)}
    assert len(progress.curve) < MOST_POINTS
    assert len(distances) <= 1
    assert progress.curve[0] == progress.first == 0.0
    assert progress.last == progress.best == num_values - 1
    assert progress.last - progress.curve[-1] <= max(distances, default=0.0)


def test_the_least_is_best_where_less_is_better():
    assert taken([0.9, 0.2, 0.4], mode="min").best == 0.2


def test_what_is_not_finite_is_neither_first_nor_best():
    progress = taken([math.nan, 0.3, math.inf, math.nan])
    assert (progress.first, progress.best) == (0.3, 0.3)
    assert math.isnan(progress.last)


def test_the_first_evaluation_at_the_target_is_kept():
    progress = taken([0.1, math.nan, 0.5, 0.9, *[0.0] * 5000], target=0.5)
    assert progress.reached.version == 2
    assert taken([0.1], target=0.5).reached is None
    assert taken([0.1]).reached is None


def test_other_sources_and_other_metrics_change_nothing():
    progress = Progress(Metric())
    progress.take(Evaluation(1, 1.0, 1, "clients", {"accuracy": 0.9}))
    progress.take(Evaluation(1, 1.0, 1, "server", {"loss": 0.9}))
    assert progress == Progress(Metric())
