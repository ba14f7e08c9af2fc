"""How good found boxes are."""

import logging
from collections.abc import Sequence

import torch

from clients.detection.boxes import Example, operations
from clients.detection.finding import MOST_OBJECTS, Found
from fedagent.errors import imported
from fedagent.tasks import Metrics

SURE = 0.4
"""Boxes with a lower score do not count in F1."""

Pairs = Sequence[tuple[Example, Found]]


def scores(pairs: Pairs, classes: Sequence[str], per_class: bool = False) -> Metrics:
    """Return mean average precision at an IoU of .5, and over .5 to .95, both by COCO's rules.

    With one class there is also F1 at an IoU of .5, as nuclei are counted. With more, on demand,
    ``map50-CLASS`` of each class that is there.

    Parameters
    ----------
    pairs : examples and what was found in them, at least one.
    classes : names of the labels.
    per_class : whether each class is reported.
    """
    module = imported("torchmetrics.detection", "fedagent[detection]", "Scoring boxes")
    metric = module.MeanAveragePrecision(
        backend="faster_coco_eval",
        max_detection_thresholds=[1, 100, MOST_OBJECTS],
        extended_summary=True,
    )
    metric.warn_on_many_detections = False
    logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # it tells 20 lines a time
    metric.update(
        [found._asdict() for _, found in pairs],
        [{"boxes": example.boxes, "labels": example.labels} for example, _ in pairs],
    )
    # (IoU thresholds, recalls, classes, areas: all, ..., most boxes); -1: no such class here.
    table = metric.compute()["precision"][:, :, :, 0, -1]
    present = torch.cat([example.labels for example, _ in pairs]).unique().tolist()
    known = [k for k in range(table.shape[2]) if (table[:, :, k] > -1).all()]
    precision = table[:, :, known].mean(1)  # (IoU thresholds, classes)
    found = {
        "map50": float(precision[0].mean()) if known else 0.0,
        "map": float(precision.mean()) if known else 0.0,
        "num-examples": float(len(pairs)),
    }
    if len(classes) == 1:
        found["f1"] = f1(pairs)
    elif per_class:
        of_class = zip(present, precision[0].tolist(), strict=True)
        found |= {f"map50-{classes[k]}": value for k, value in of_class}
    return found


def f1(pairs: Pairs) -> float:
    """Return 2 hits / (boxes found + boxes that are there), over all pictures together.

    From the surest on, a found box hits the free box that it shares most with, if that is an IoU of
    at least .5.
    """
    hits = total = 0
    for example, found in pairs:
        sure = found.boxes[found.scores > SURE]
        total += len(sure) + len(example.boxes)
        if not len(sure) or not len(example.boxes):
            continue
        for row in (shared := operations().box_iou(sure, example.boxes)):
            best = int(row.argmax())
            if row[best] >= 0.5:
                hits += 1
                shared[:, best] = 0.0  # rows are views: nobody hits it again
    return 2 * hits / total if total else 1.0
