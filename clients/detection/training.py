r"""What the detector is trained to say.

    loss = (1 / n) sum over cells (focal(logits, class) + own (1 - GIoU(box, the object's)))
    focal = sum over classes (w_c if the cell is of another class, or none, else 1) focal_c

own: 1 for a cell that is an object's, else 0; n: how many are. A cell is an object's if its point
lies in the object's box and not more than 1.5 cells from the middle, or if it is the nearest to the
middle; of several objects it is the smallest one's (FCOS, arXiv 1904.01355, with centre sampling).
Focal loss: arXiv 1708.02002, alpha = .25, gamma = 2. Generalised IoU: arXiv 1902.09630.

w_c: the share of class c among a node's objects over that among all nodes' objects, so that what
speaks for a class and what speaks against it are in the same proportion on every node. A node that
never sees a c would otherwise do nothing but unlearn it (compare FedRS, KDD 2021, on softmax).
"""

import torch

from clients.detection.boxes import NOTHING, Batch, operations
from clients.detection.model import STRIDE

RADIUS = 1.5 * STRIDE


def loss(
    logits: torch.Tensor, boxes: torch.Tensor, points: torch.Tensor, batch: Batch
) -> torch.Tensor:
    """Return the loss of (B, L, K) logits and (B, L, 4) boxes at (L, 2) points."""
    ops = operations()
    owner, is_object = assigned(points, batch)
    count = is_object.sum().clamp(min=1)
    labels = batch.labels.gather(1, owner)
    wanted = torch.zeros_like(logits)
    wanted.scatter_(2, labels.clamp(min=0)[..., None], is_object[..., None].to(logits.dtype))
    focal = ops.sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2.0, reduction="none")
    focal = (focal * torch.where(wanted > 0, torch.ones_like(focal), batch.negatives)).sum()
    targets = batch.boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    overlap = ops.generalized_box_iou_loss(boxes, targets, reduction="none")
    total: torch.Tensor = (focal + (overlap * is_object).sum()) / count
    return total


def assigned(points: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return per cell which of a picture's M boxes it belongs to, and whether to any; (B, L)."""
    low, high = batch.boxes[:, None].split(2, -1)  # (B, 1, M, 2)
    at = points[:, None]  # (L, 1, 2)
    distance = (at - (low + high) / 2).abs().amax(-1)  # (B, L, M)
    is_inside = ((at > low) & (at < high)).all(-1) & (distance <= RADIUS)
    is_nearest = torch.zeros_like(is_inside).scatter_(1, distance.argmin(1, keepdim=True), True)
    is_there = (batch.labels != NOTHING)[:, None]
    area = (high - low).prod(-1).masked_fill(~((is_inside | is_nearest) & is_there), torch.inf)
    smallest, owner = area.min(-1)
    return owner, smallest.isfinite()
