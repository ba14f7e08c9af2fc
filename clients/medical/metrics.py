"""How good probabilities are: the same measures for a network and for the baseline."""

from typing import Any

import torch
import torch.nn.functional as F

from fedagent.errors import imported


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
        # A forest is sometimes certain and wrong: an infinite loss would hide all others.
        "loss": float(F.nll_loss(probabilities.clamp_min(1e-7).log(), labels)),
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


def _torchmetrics() -> Any:
    """Import it late: it takes seconds, which a node that only trains need not spend."""
    module = "torchmetrics.functional.classification"
    return imported(module, "fedagent[medical]", "Evaluating images")
