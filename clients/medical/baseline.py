"""What the network has to beat: a random forest on the pixels, with the same split."""

import torch

from fedagent.tasks.images import Images
from fedagent.tasks.packaged import Package

_SCIKIT_LEARN = Package("scikit-learn", "The baseline's random forest", "fedagent[medical]")


def random_forest(train: Images, images: Images, seed: int, num_trees: int = 400) -> torch.Tensor:
    """Return (N, K) probabilities of `images`, from a forest that learned from `train`.

    Raises
    ------
    DataUnavailableError
        If scikit-learn is missing.
    """
    ensemble = _SCIKIT_LEARN.module("sklearn.ensemble")  # takes seconds
    forest = ensemble.RandomForestClassifier(num_trees, random_state=seed)
    forest.fit(train.pixels.flatten(1).numpy(), train.labels.numpy())
    return torch.from_numpy(forest.predict_proba(images.pixels.flatten(1).numpy())).float()
