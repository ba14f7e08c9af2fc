"""What is asked about a patient: what is minimised, and how a hospital's answers are judged.

sick    is a coronary artery narrowed?   cross-entropy; AUROC
stay    for how many days?               squared error of log days; R^2 of log days, error in days
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fedagent.errors import imported
from fedagent.stopping import Metric
from fedagent.tasks import Metrics

Judge = Callable[[torch.Tensor, torch.Tensor], Metrics]


@dataclass(frozen=True)
class Question:
    """What is asked.

    Parameters
    ----------
    metric : to report.
    loss : of (N,) scores and (N,) labels, their mean.
    measures : of (N,) scores and (N,) labels of one hospital, N >= 1.
    has_level : whether a hospital adds its own level to the scores before they are judged: the mean
        of what its training patients' labels are above their scores. It stays at the hospital.
    """

    metric: Metric
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    measures: Judge
    has_level: bool


def _of_sick(scores: torch.Tensor, labels: torch.Tensor) -> Metrics:
    # Imported here because it takes seconds, which a node that only trains need not spend.
    module = "torchmetrics.functional.classification"
    torchmetrics = imported(module, "fedagent[hospitals]", "The AUROC")
    return {
        "auroc": float(torchmetrics.binary_auroc(scores, labels.long())),
        "loss": float(F.binary_cross_entropy_with_logits(scores, labels)),
        "num-examples": float(len(labels)),
    }


def _of_stays(scores: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """R^2 is 0 where nothing varies: of one patient, or if all stayed equally long."""
    error, spread = F.mse_loss(scores, labels), labels.var(correction=0)
    return {
        "r2": float(1 - error / spread) if spread > 0 else 0.0,
        "mae-days": float((scores.exp() - labels.exp()).abs().mean()),
        "loss": float(error),
        "num-examples": float(len(labels)),
    }


SICK = Question(Metric("auroc"), F.binary_cross_entropy_with_logits, _of_sick, has_level=False)
STAY = Question(Metric("r2"), F.mse_loss, _of_stays, has_level=True)
