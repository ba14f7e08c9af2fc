"""What the network has to beat: a random forest on the pixels, with the same split."""

import numpy as np
import torch

from clients.medical.metrics import area_under_curve, measures
from clients.medical.task import MedicalTask
from clients.vision.data import Images
from fedagent.errors import imported


def baseline(task: MedicalTask, num_trees: int = 400) -> dict[str, float]:
    """Return the forest's metrics on the test split, under the names of ``task.evaluate``.

    It learns from all images outside the test split: also from those that nodes validate with.

    Raises
    ------
    DataUnavailableError
        If scikit-learn is missing.
    """
    sklearn = imported("sklearn.ensemble", "fedagent[medical]", "The baseline, a random forest,")
    train, test = task.data.train, task.data.test
    forest = sklearn.RandomForestClassifier(num_trees, random_state=task.seed)
    forest.fit(_rows(train), train.labels.numpy())
    probabilities = torch.from_numpy(forest.predict_proba(_rows(test))).float()
    return {"auroc": area_under_curve(probabilities, test.labels)} | measures(
        probabilities, test.labels
    )


def _rows(images: Images) -> np.ndarray:
    return images.pixels.flatten(1).numpy()
