"""Packaged MNIST on 100 nodes with a small network: real data for the pure loops of `loop.py`.

196 - 32 ReLU - 10 softmax on images of 14x14, batches of 32; 4,000 images to train on, 1,000 to
test. Small images, and gradients written out in NumPy, let a node's eight steps take a fraction of
a millisecond.
"""

from functools import lru_cache

import numpy as np
import torch.nn.functional as F

from clients.vision.data import PACKAGED, load
from fedagent.tasks import partitioning
from fedagent.tasks.partitioning import Partition

PIXELS, HIDDEN, CLASSES, BATCH = 14 * 14, 32, 10, 32
SLOW_LABELS = (8, 9)
"""The classes that only the slowest fifth of the nodes holds, with `label_by_speed`."""

PARTITIONS: dict[str, Partition] = {
    "iid": partitioning.iid,
    "dirichlet(0.1)": lambda *args, **kw: partitioning.dirichlet(*args, alpha=0.1, **kw),
    "labels by speed": lambda *args, **kw: partitioning.label_by_speed(
        *args, slow_labels=SLOW_LABELS, **kw
    ),
}


@lru_cache
def _images() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    data = load(PACKAGED, "data")
    train, test = (
        F.avg_pool2d(images.batch(slice(None))[0], 2).flatten(1).numpy()
        for images in (data.train, data.test)
    )
    return train, data.train.labels.numpy(), test, data.test.labels.numpy()


class Digits:
    """Classify digits; the score is test accuracy.

    Parameters
    ----------
    partition : a key of `PARTITIONS`.
    seconds_per_step : (K,) speeds, which `label_by_speed` depends on.
    seed : decides the partition.
    target : accuracy in [0, 1].
    """

    def __init__(
        self, partition: str, seconds_per_step: np.ndarray, seed: int, target: float
    ) -> None:
        self.inputs, self.labels, _, _ = _images()
        self.num_nodes = len(seconds_per_step)
        self.target = target
        self._parts = PARTITIONS[partition](
            self.labels, self.num_nodes, seed=seed, seconds_per_step=seconds_per_step.tolist
        )
        self.weights = np.array([len(part) for part in self._parts], float)

    def initial(self, seed: int) -> np.ndarray:
        """Return He-initialised weights and zero biases."""
        rng = np.random.default_rng([seed, 1])
        first = rng.standard_normal((PIXELS, HIDDEN)) * np.sqrt(2 / PIXELS)
        second = rng.standard_normal((HIDDEN, CLASSES)) * np.sqrt(1 / HIDDEN)
        zeros = np.zeros(HIDDEN), np.zeros(CLASSES)
        parts = (first.ravel(), zeros[0], second.ravel(), zeros[1])
        return np.concatenate(parts).astype(np.float32)

    def arrays(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Return the layers' weights and biases."""
        return dict(zip(("w1", "b1", "w2", "b2"), _layers(vector), strict=True))

    def work(
        self, node: int, start: np.ndarray, steps: int, rate: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Return what `steps` steps of SGD on the node's own digits change."""
        vector, part = start.copy(), self._parts[node]
        w1, b1, w2, b2 = _layers(vector)
        for _ in range(steps):
            chosen = part[rng.integers(len(part), size=min(BATCH, len(part)))]
            x = self.inputs[chosen]
            hidden = np.maximum(x @ w1 + b1, 0)
            error = _softmax(hidden @ w2 + b2)
            error[np.arange(len(chosen)), self.labels[chosen]] -= 1
            error *= rate / len(chosen)
            back = (error @ w2.T) * (hidden > 0)
            w2 -= hidden.T @ error
            b2 -= error.sum(0)
            w1 -= x.T @ back
            b1 -= back.sum(0)
        return vector - start

    def score(self, vector: np.ndarray) -> float:
        """Return the accuracy on the test split."""
        return float(np.mean(_is_right(vector)))


def slow_accuracy(vector: np.ndarray) -> float:
    """Return the test accuracy on `SLOW_LABELS`."""
    return float(np.mean(_is_right(vector)[np.isin(_images()[3], SLOW_LABELS)]))


def _is_right(vector: np.ndarray) -> np.ndarray:
    _, _, inputs, labels = _images()
    w1, b1, w2, b2 = _layers(vector)
    return np.argmax(np.maximum(inputs @ w1 + b1, 0) @ w2 + b2, 1) == labels


def _layers(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return views of the weights (196, H), (H,), (H, C), (C,) in a flat vector."""
    w1, b1, w2, b2 = np.split(vector, np.cumsum([PIXELS * HIDDEN, HIDDEN, HIDDEN * CLASSES]))
    return w1.reshape(PIXELS, HIDDEN), b1, w2.reshape(HIDDEN, CLASSES), b2


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)
