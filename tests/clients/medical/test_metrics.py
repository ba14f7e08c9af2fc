import math

import pytest
import torch

from clients.medical.metrics import area_under_curve, measures


def of_class_one(*probabilities):
    p = torch.tensor(probabilities)
    return torch.stack([1 - p, p], dim=1)


def test_accuracy_and_loss_by_hand():
    out = measures(of_class_one(0.9, 0.4, 0.2), torch.tensor([1, 1, 0]))
    assert out["accuracy"] == pytest.approx(2 / 3)
    assert out["loss"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.8)) / 3)
    assert out["num-examples"] == 3


def test_calibration_error_is_the_gap_between_said_and_true_frequency():
    # Ten times ".7": seven tumours are calibrated, five are .2 off.
    said = of_class_one(*[0.7] * 10)
    for tumours, gap in ((7, 0.0), (5, 0.2)):
        labels = (torch.arange(10) < tumours).long()
        assert measures(said, labels)["calibration-error"] == pytest.approx(gap, abs=1e-6)


def test_area_under_curve_is_the_share_of_pairs_in_order():
    said, labels = of_class_one(0.1, 0.6, 0.4, 0.8), torch.tensor([0, 0, 1, 1])
    assert area_under_curve(said, labels) == pytest.approx(3 / 4)


def test_certain_and_wrong_costs_much_but_not_infinitely():
    assert 10 < measures(of_class_one(0.0), torch.tensor([1]))["loss"] < 100


def test_three_classes_are_measured_too():
    said = torch.eye(3)
    out = measures(said, torch.arange(3)) | {"auroc": area_under_curve(said, torch.arange(3))}
    assert (out["accuracy"], out["auroc"]) == (1.0, 1.0)
    assert out["calibration-error"] == pytest.approx(0.0, abs=1e-6)
