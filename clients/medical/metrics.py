"""How good probabilities are: the same measures for a network and for the baseline."""

import torch
import torch.nn.functional as F


def measures(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return accuracy, expected calibration error (15 bins, arXiv 1706.04599), loss and count.

    Parameters
    ----------
    probabilities : (N, K) of the K classes, N >= 1. For K = 2 calibration is that of class 1.
    labels : (N,) int64.
    """
    # Imported here because it takes seconds, which a node that only trains need not spend.
    from torchmetrics.functional.classification import (  # noqa: PLC0415
        binary_calibration_error,
        multiclass_calibration_error,
    )

    num_classes = probabilities.shape[1]
    error = (
        binary_calibration_error(probabilities[:, 1].contiguous(), labels)
        if num_classes == 2
        else multiclass_calibration_error(probabilities, labels, num_classes)
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
    from torchmetrics.functional.classification import multiclass_auroc  # noqa: PLC0415

    return float(multiclass_auroc(probabilities, labels, probabilities.shape[1]))
