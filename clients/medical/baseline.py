"""What the network has to beat: a random forest on the pixels, with the same split.

The pixels are means of squares, 32x32 of them if the images are no smaller: as good, and soon done.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from fedagent.tasks.images import Images
from fedagent.tasks.packaged import Package

_SCIKIT_LEARN = Package("scikit-learn", "The baseline's random forest", "fedagent[medical]")
_SIZE = 32


def random_forest(train: Images, images: Images, seed: int, num_trees: int = 200) -> torch.Tensor:
    """Return (N, K) probabilities of `images`, from a forest that learned from `train`.

    Raises
    ------
    DataUnavailableError
        If scikit-learn is missing.
    """
    ensemble = _SCIKIT_LEARN.module("sklearn.ensemble")  # takes seconds
    forest = ensemble.RandomForestClassifier(num_trees, random_state=seed)
    forest.fit(_pixels(train), train.labels.numpy())
    return torch.from_numpy(forest.predict_proba(_pixels(images))).float()


def _pixels(images: Images) -> npt.NDArray[np.float32]:
    pixels = images.pixels.float()
    small = F.adaptive_avg_pool2d(pixels, min(_SIZE, images.size))
    return small.flatten(1).numpy()
