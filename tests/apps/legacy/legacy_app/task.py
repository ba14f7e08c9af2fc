"""Softmax regression on the iris data, in NumPy."""

from functools import lru_cache

import numpy as np
from sklearn.datasets import load_iris

NUM_CLASSES = 3


@lru_cache
def load_data() -> tuple[np.ndarray, np.ndarray]:
    """All measurements, standardised and with a constant, and their classes."""
    features, labels = load_iris(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    order = np.random.default_rng(0).permutation(len(labels))
    return np.hstack([features, np.ones((len(labels), 1))])[order], labels[order]


def partition(partition_id: int, num_partitions: int) -> tuple[np.ndarray, np.ndarray]:
    features, labels = load_data()
    return features[partition_id::num_partitions], labels[partition_id::num_partitions]


def initial_weights() -> list[np.ndarray]:
    return [np.zeros((load_data()[0].shape[1], NUM_CLASSES))]


def probabilities(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    scores = features @ weights
    scores = np.exp(scores - scores.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def train(weights: np.ndarray, features, labels, lr: float, epochs: int, noise: float):
    """Gradient steps on slightly noisy measurements."""
    for _ in range(epochs):
        seen = features + noise * np.random.randn(*features.shape)
        error = probabilities(weights, seen) - np.eye(NUM_CLASSES)[labels]
        weights = weights - lr * seen.T @ error / len(labels)
    return weights


def loss_and_accuracy(weights: np.ndarray, features, labels) -> tuple[float, float]:
    guessed = probabilities(weights, features)
    loss = -np.log(guessed[np.arange(len(labels)), labels] + 1e-12).mean()
    return float(loss), float((guessed.argmax(1) == labels).mean())
