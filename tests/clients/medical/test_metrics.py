import math

import numpy as np
import pytest
import torch

from clients.medical.metrics import area_under_curve, measures, over_groups


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


def drawn(num_groups, per_group, seed=3):
    """Answers that are right in seven of ten groups, and the same in all images of a group."""
    torch.manual_seed(seed)
    labels = torch.arange(num_groups) % 2
    is_right = torch.arange(num_groups) // 2 % 10 < 7
    said = of_class_one(*torch.where(is_right, labels, 1 - labels).mul(0.8).add(0.1).tolist())
    groups = torch.arange(num_groups).repeat_interleave(per_group)
    return said[groups], labels[groups], groups.numpy()


def test_an_interval_is_that_of_the_number_of_groups_not_of_images():
    said, labels, groups = drawn(100, 1)
    of_few = over_groups(said, labels, groups)
    # Of 100 independent answers, 70 right: 0.7 +- 1.96 sqrt(0.7 * 0.3 / 100).
    assert of_few["accuracy-low"] == pytest.approx(0.7 - 0.09, abs=0.02)
    assert of_few["accuracy-high"] == pytest.approx(0.7 + 0.09, abs=0.02)
    copies = over_groups(*drawn(100, 6))
    assert copies["accuracy-low"] == pytest.approx(of_few["accuracy-low"], abs=0.01)
    as_if_independent = over_groups(*drawn(100, 6)[:2], np.arange(600))
    width = as_if_independent["accuracy-high"] - as_if_independent["accuracy-low"]
    assert width < 0.5 * (copies["accuracy-high"] - copies["accuracy-low"])


def test_a_group_counts_the_same_however_many_copies_it_has():
    said, labels = of_class_one(0.9, 0.2, 0.4, 0.1), torch.tensor([1, 1, 0, 0])
    copies = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 3])  # five of the first, one of the second
    once = over_groups(said, labels, np.arange(4))
    often = over_groups(said[copies], labels[copies], copies.numpy())
    for name, value in (("accuracy", 0.75), ("auroc", 0.75)):
        assert once[name] == often[name] == pytest.approx(value)
    assert often["calibration-error"] == pytest.approx(once["calibration-error"])
    assert often["loss"] == pytest.approx(once["loss"])
    assert measures(said[copies], labels[copies])["accuracy"] == pytest.approx(8 / 9)


def test_resampled_measures_are_those_of_the_resampled_images():
    torch.manual_seed(1)
    said, labels = of_class_one(*torch.rand(40).tolist()), (torch.rand(40) < 0.5).long()
    whole = over_groups(said, labels, np.zeros(40, np.int64))  # one group: every draw is the whole
    assert whole["loss"] == pytest.approx(measures(said, labels)["loss"])
    expected = measures(said, labels) | {"auroc": area_under_curve(said, labels)}
    for name in ("accuracy", "auroc", "calibration-error"):
        for end in ("low", "high"):
            assert whole[f"{name}-{end}"] == pytest.approx(expected[name], abs=1e-5)
