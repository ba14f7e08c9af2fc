"""How good probabilities are: the same measures for a network and for the baseline."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from clients.medical.duplicates import Integers
from fedagent.errors import imported

_BINS = 15


def measures(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return accuracy, expected calibration error (15 bins, arXiv 1706.04599), loss and count.

    Parameters
    ----------
    probabilities : (N, K) of the K classes, N >= 1. For K = 2 calibration is that of class 1.
    labels : (N,) int64.
    """
    torchmetrics = _torchmetrics()
    num_classes = probabilities.shape[1]
    error = (
        torchmetrics.binary_calibration_error(probabilities[:, 1].contiguous(), labels)
        if num_classes == 2
        else torchmetrics.multiclass_calibration_error(probabilities, labels, num_classes)
    )
    return {
        "accuracy": float((probabilities.argmax(1) == labels).float().mean()),
        "calibration-error": float(error),
        "loss": float(F.nll_loss(_log(probabilities), labels)),
        "num-examples": float(len(labels)),
    }


def area_under_curve(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the area under the ROC curve, the mean over classes if there are more than two.

    Parameters
    ----------
    probabilities : (N, K) of the K classes.
    labels : (N,) int64; every class has to be among them.
    """
    area = _torchmetrics().multiclass_auroc(probabilities, labels, probabilities.shape[1])
    return float(area)


def over_groups(
    probabilities: torch.Tensor, labels: torch.Tensor, groups: Integers, draws: int = 1000
) -> dict[str, float]:
    """Return accuracy, AUROC, calibration error and loss with every group counting the same.

    Images of one group are one example in many copies. ``accuracy-low`` and ``accuracy-high`` and
    so on are the ends of 95 % intervals: percentiles of a bootstrap over groups (Field, Welsh,
    "Bootstrapping clustered data", JRSS B 2007), whose draws are always the same.

    Parameters
    ----------
    probabilities : (N, 2), N >= 1.
    labels : (N,) int64; both classes are among them.
    groups : (N,) group of each image, numbered from 0; none is empty.
    draws : number of resampled test splits.
    """
    sizes = np.bincount(groups)
    times = np.random.default_rng(1).multinomial(
        len(sizes), np.full(len(sizes), 1 / len(sizes)), draws
    )
    times = np.concatenate([np.ones((1, len(sizes))), times])  # first the test split as it is
    weights = torch.from_numpy((times / sizes)[:, groups]).float()  # (1 + draws, N)
    score, is_sick = probabilities[:, 1].float(), labels == 1
    sick, healthy = score[is_sick], score[~is_sick]
    wins = (sick[:, None] > healthy).float() + 0.5 * (sick[:, None] == healthy).float()
    of_sick, of_healthy = weights[:, is_sick], weights[:, ~is_sick]
    gap = F.one_hot((score * _BINS).long().clamp(max=_BINS - 1), _BINS) * (labels - score)[:, None]
    total = weights.sum(1)
    found = {
        "accuracy": weights @ (probabilities.argmax(1) == labels).float() / total,
        "auroc": ((of_sick @ wins) * of_healthy).sum(1) / (of_sick.sum(1) * of_healthy.sum(1)),
        "calibration-error": (weights @ gap).abs().sum(1) / total,
    }
    ends = torch.tensor([0.025, 0.975])
    metrics = {name: float(values[0]) for name, values in found.items()}
    for name, values in found.items():
        low, high = values[1:].nanquantile(ends).tolist()  # a draw of one class has no AUROC
        metrics |= {f"{name}-low": low, f"{name}-high": high}
    losses = F.nll_loss(_log(probabilities), labels, reduction="none")
    loss = float(weights[0] @ losses / total[0])
    by_image = float((probabilities.argmax(1) == labels).float().mean())
    counted = {"accuracy-by-image": by_image, "loss": loss, "num-examples": float(len(labels))}
    return metrics | counted


def _log(probabilities: torch.Tensor) -> torch.Tensor:
    # A forest is sometimes certain and wrong: an infinite loss would hide all others.
    return probabilities.clamp_min(1e-7).log()


def _torchmetrics() -> Any:
    """Import it late: it takes seconds, which a node that only trains need not spend."""
    module = "torchmetrics.functional.classification"
    return imported(module, "fedagent[medical]", "Evaluating images")
