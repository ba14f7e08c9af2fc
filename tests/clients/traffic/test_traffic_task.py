from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clients.traffic import TrafficTask
from clients.traffic.baseline import SeasonalNaive
from clients.traffic.metrics import scores
from clients.traffic.model import TCN, Forecaster
from clients.traffic.trust import blended, trust
from clients.traffic.windows import FIRST_ORIGIN, Examples
from fedagent.client import LocalTraining, train
from fedagent.errors import ConfigurationError
from tests.clients.traffic.conftest import small_counts

CPU = torch.device("cpu")


class Constant(nn.Module):
    """Forecasts the training mean plus some deviations."""

    def __init__(self, z):
        super().__init__()
        self.z = z

    def forward(self, window, features):
        return torch.full(features.shape[:2], self.z)


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_not_known_enough_is_0_and_what_is_not_known_at_all_is_left_out(task, count):
    origins = task.origins(0, "test")[:count]
    batch = task.series[0].examples(origins)
    is_known = torch.zeros(count, 2)
    is_known[0, 0] = 1.0  # one hour ahead, once
    batch = batch._replace(is_known=is_known)
    found = scores(task.series[0], torch.zeros(count, 2), batch)
    off = abs(float(batch.targets[0, 0])) * task.series[0].deviation
    assert found == {
        "mae": pytest.approx(off),
        "mae-1h": pytest.approx(off),
        "r2-1h": 0.0,
        "num-examples": float(count),
    }


def test_training_validation_and_test_follow_each_other_and_share_no_target(task):
    assert task.cuts == (840, 960, 1200)
    targets = {}
    for part in ("train", "validation", "test"):
        origins = task.origins(0, part)
        targets[part] = {int(t) + h for t in origins for h in (1, 24)}
    assert max(targets["train"]) < 840 <= min(targets["validation"])
    assert max(targets["validation"]) < 960 <= min(targets["test"])
    assert max(targets["test"]) < 1200
    assert min(task.origins(0, "train")) == FIRST_ORIGIN


def test_hours_after_training_change_no_batch(task, monkeypatch):
    counts = small_counts()
    values = counts.values.copy()
    values[task.cuts[0] :] = 1e6
    monkeypatch.setattr("clients.traffic.task.load", lambda *_: replace(counts, values=values))
    batches = []
    for one in (task, TrafficTask(num_partitions=3)):
        torch.manual_seed(4)
        batches.append(next(one.batches(None, 200)))
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_hours_without_any_target_are_not_learned_from(task):
    counts = task.counts.values[:, 1]
    origins = task.origins(1, "train").numpy()
    assert not (np.isnan(counts[origins + 1]) & np.isnan(counts[origins + 24])).any()
    assert task.num_examples(1) == len(origins) < 840 - 24 - FIRST_ORIGIN


def test_a_sensor_is_examined_every_fifth_hour_and_so_at_every_hour_of_the_week(monkeypatch):
    counts = small_counts(num_hours=12_000)
    monkeypatch.setattr("clients.traffic.task.load", lambda *_: counts)
    origins = TrafficTask(num_partitions=3).origins(0, "test")
    assert set(torch.unique(origins % 168).tolist()) == set(range(168))


def test_batches_of_a_node_hold_its_own_hours_only(task):
    batch = next(task.batches(2, 64))
    windows = task.series[2].examples(task.origins(2, "train")).window
    own = {row.numpy().tobytes() for row in windows}
    assert {row.numpy().tobytes() for row in batch.window} <= own
    assert batch.window.shape == (64, 12, 2)
    pooled = next(task.batches(None, 64))
    assert len(pooled.targets) == 64
    assert not {row.numpy().tobytes() for row in pooled.window} <= own


def test_missing_targets_count_neither_in_the_loss_nor_in_the_metric(task):
    z = torch.tensor([[1.0, 2.0], [4.0, 0.0], [-2.0, 0.0]])
    is_known = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    batch = Examples(torch.zeros(3, 12, 2), torch.zeros(3, 2, 17), z, is_known)
    assert float(task.loss(Constant(1.0), batch)) == pytest.approx((0 + 1 + 3 + 3) / 4)
    nothing = batch._replace(is_known=torch.zeros(3, 2))
    assert float(task.loss(Constant(1.0), nothing)) == 0.0


def test_errors_are_in_counts_and_both_horizons_count_the_same(task):
    series = replace(task.series[0], mean=100.0, deviation=10.0)
    targets = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 0.0]])
    is_known = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    batch = Examples(torch.zeros(3, 12, 2), torch.zeros(3, 2, 17), targets, is_known)
    found = scores(series, torch.full((3, 2), 2.0), batch)
    assert found["mae-1h"] == pytest.approx(10 * 4 / 3)
    assert found["mae-24h"] == pytest.approx(10.0)
    assert found["mae"] == pytest.approx((40 / 3 + 10) / 2)
    assert found["r2-1h"] == pytest.approx(0.0), "2 is the mean of 0, 2 and 4"
    assert found["num-examples"] == 3


def test_the_test_metric_is_the_mean_of_the_sensors(task):
    found = task.evaluate(Constant(0.0), CPU)
    by_sensor = []
    for k, series in enumerate(task.series):
        seen, asked = (
            series.examples(task.origins(k, *how)) for how in (("validation", 1), ("test",))
        )
        weights = trust(torch.zeros(len(seen.targets), 2), seen)
        forecasts = blended(torch.zeros(len(asked.targets), 2), asked, weights)
        by_sensor.append(scores(series, forecasts, asked))
    assert found["mae"] == pytest.approx(np.mean([metrics["mae"] for metrics in by_sensor]))
    assert by_sensor[2]["mae"] > 2 * by_sensor[0]["mae"], "sensor c counts three times as many"
    assert found["num-examples"] == sum(metrics["num-examples"] for metrics in by_sensor)
    own = task.evaluate(Constant(0.0), CPU, 1)
    assert own["num-examples"] == len(task.origins(1, "validation"))


def test_the_seasonal_naive_forecast_is_the_week_before_by_hand(task):
    counts, series = task.counts.values[:, 0], task.series[0]
    errors = {1: [], 24: []}
    for origin in task.origins(0, "test").tolist():
        for horizon, found in errors.items():
            wanted = origin + horizon
            week, fortnight = counts[wanted - 168], counts[wanted - 336]
            forecast = fortnight if np.isnan(week) else week
            forecast = series.mean if np.isnan(forecast) else forecast
            if not np.isnan(counts[wanted]):
                found.append(abs(forecast - counts[wanted]))
    batch = series.examples(task.origins(0, "test"))
    found = scores(series, SeasonalNaive()(batch.window, batch.features), batch)
    assert found["mae-1h"] == pytest.approx(np.mean(errors[1]), rel=1e-4)
    assert found["mae-24h"] == pytest.approx(np.mean(errors[24]), rel=1e-4)


def test_a_sensor_trusts_a_network_as_far_as_its_own_validation_hours_do(task):
    seen = task.series[0].examples(task.origins(0, "validation", 1))
    naive = SeasonalNaive()(seen.window, seen.features)
    assert trust(seen.targets, seen).tolist() == [1.0, 1.0], "it is right"
    assert trust(naive + 100.0, seen).tolist() == [0.0, 0.0], "it is far off"
    mixed = torch.stack([naive[:, 0] + 2 * (seen.targets - naive)[:, 0], naive[:, 1] + 100.0], 1)
    assert trust(mixed, seen).tolist() == [0.5, 0.0], "it exaggerates, and only 1 hour ahead"


def test_a_network_that_is_far_off_is_tested_as_the_week_before(task):
    found, naive = task.evaluate(Constant(1000.0), CPU), task.baseline()
    assert found["mae"] == pytest.approx(naive["mae"])
    assert task.evaluate(Constant(1000.0), CPU, 0)["mae"] > 100 * naive["mae"]


@pytest.mark.parametrize("kind", ["gru", "tcn"])
def test_a_network_of_zeros_forecasts_the_week_before(kind, task):
    batch = task.series[0].examples(task.origins(0, "test"))
    model = Forecaster(kind, 4)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(model(batch.window, batch.features), batch.features[:, :, 2])


def test_the_convolutions_see_the_whole_window_in_order():
    torch.manual_seed(0)
    tcn = TCN(8)
    window = torch.randn(1, 12, 2, requires_grad=True)
    tcn(window).sum().backward()
    assert (window.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("kind", ["gru", "tcn"])
def test_the_network_learns(kind, monkeypatch):
    monkeypatch.setattr("clients.traffic.task.load", lambda *_: small_counts())
    task = TrafficTask(kind, num_partitions=3)
    torch.manual_seed(1)
    model = task.build_model()
    settings = LocalTraining(optimizer="adam", learning_rate=3e-3, local_steps=150)
    train(task, model, task.batches(None, 64), settings, CPU)
    assert task.evaluate(model, CPU)["mae"] < 0.9 * task.baseline()["mae"]


def test_numbers_of_nodes_and_hours_that_do_not_fit_are_refused(task, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"fleet\.num_nodes=3 or less"):
        TrafficTask(num_partitions=4).num_examples(0)
    with pytest.raises(ConfigurationError, match="partition-id=3 does not exist"):
        task.num_examples(3)
    monkeypatch.setattr("clients.traffic.task.load", lambda *_: small_counts(num_hours=400))
    with pytest.raises(ConfigurationError, match="400 hours are too few"):
        TrafficTask(num_partitions=3).num_examples(0)


@pytest.mark.parametrize(
    "settings",
    [{"model": "lstm"}, {"hidden": 0}, {"evaluate_every_h": 0}, {"test_fraction": 1.0}],
)
def test_settings_that_cannot_work_are_refused_by_name(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        TrafficTask(**settings)
