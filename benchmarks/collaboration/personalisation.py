r"""Nodes in hidden groups: who should learn from whom, found out from their updates.

Twenty nodes hold 60 images each of the packaged MNIST. The nodes fall into four groups, node k into
group k mod 4, that nobody is told of:

    rotated    a group sees every image turned by 0, 90, 180 or 270 degrees
    labels     a group calls class y by the name (y + 3 group) mod 10

A node trains a softmax regression and is examined on the 1,000 test images, as its group sees them.
Speeds are lognormal (sigma 0.5), all nodes are always busy, an update is 8 steps on 20 images.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from clients.vision.data import load
from fedagent.mixing import LearnedMixing, Mixing, adjusted_rand_index, grouped
from fedagent.model import FlatModel, ModelSpec
from fedagent.rules import FedBuff, Rule
from fedagent.rules.staleness import constant, polynomial
from fedagent.tasks.images import Images
from fedagent.update import Update

NODES, NUM_GROUPS, IMAGES, CLASSES = 20, 4, 60, 10
GROUPS = [k % NUM_GROUPS for k in range(NODES)]
LOCAL_STEPS, BATCH = 8, 20
RATES = (0.02, 0.05, 0.1, 0.2, 0.4)
Examples = tuple[torch.Tensor, torch.Tensor]

RULES: dict[str, Callable[[], Rule]] = {
    "learned": lambda: Mixing(LearnedMixing(NODES), constant),
    "learned, s = (1+tau)^-1/2": lambda: Mixing(LearnedMixing(NODES), polynomial),
    "true groups": lambda: Mixing(grouped(GROUPS), constant),
    "global (FedBuff)": lambda: FedBuff(10, staleness=constant),
    "local only": lambda: Mixing(grouped(range(NODES)), constant),
}


def seen_by(group: int, images: Images, chosen: torch.Tensor, kind: str) -> Examples:
    """Return (N, 784) pixels and (N,) labels of the chosen images as a group sees them."""
    pixels, labels = images.batch(chosen)
    if kind == "rotated":
        pixels = torch.rot90(pixels, group, (2, 3))
    else:
        labels = (labels + 3 * group) % CLASSES
    return pixels.flatten(1), labels


@cache
def node_data(kind: str, seed: int) -> tuple[list[Examples], list[Examples]]:
    """Return every node's training images and every group's test images."""
    data = load()
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    parts = order[: NODES * IMAGES].reshape(NODES, IMAGES)
    train = [seen_by(g, data.train, p, kind) for g, p in zip(GROUPS, parts, strict=True)]
    everything = torch.arange(len(data.test))
    return train, [seen_by(g, data.test, everything, kind) for g in range(NUM_GROUPS)]


def train_locally(
    start: torch.Tensor, examples: Examples, rate: float, generator: torch.Generator
) -> torch.Tensor:
    """Return Delta of `LOCAL_STEPS` steps of softmax regression from the (7840,) `start`."""
    pixels, labels = examples
    weights = start.clone().view(-1, CLASSES)
    for _ in range(LOCAL_STEPS):
        chosen = torch.randint(len(labels), (BATCH,), generator=generator)
        x, y = pixels[chosen], labels[chosen]
        error = torch.softmax(x @ weights, 1) - F.one_hot(y, CLASSES)
        weights.addmm_(x.T, error, alpha=-rate / BATCH)
    return weights.view(-1) - start


@dataclass
class Outcome:
    """What a run leaves: the mean and the worst node's accuracy over time, its rule and model."""

    updates: list[int]
    mean: list[float]
    worst: list[float]
    rule: Rule
    model: FlatModel


def asynchronous(
    rule: Rule, kind: str, rate: float, seed: int, num_updates: int, every: int = 200
) -> Outcome:
    """Run a rule in an event loop; a node trains on and is examined with its own model."""
    train, test = node_data(kind, seed)
    zeros = np.zeros(784 * CLASSES, np.float32)
    model = FlatModel(ModelSpec.of({"weight": zeros}), {"weight": zeros})
    times = np.exp(0.5 * np.random.default_rng(seed).standard_normal(NODES))
    generator = torch.Generator().manual_seed(seed)
    outcome = Outcome([], [], [], rule, model)

    def own(node: int) -> torch.Tensor:
        theta = rule.model_for(node)
        return model.vector if theta is None else theta

    events = [(float(times[k]), k, k, own(k).clone(), 0) for k in range(NODES)]
    heapq.heapify(events)
    for number in range(1, num_updates + 1):
        now_s, _, node, base, version = heapq.heappop(events)
        delta = train_locally(base, train[node], rate, generator)
        update = Update(
            node, delta, base, model.version - version, IMAGES, metrics={"partition-id": node}
        )
        assert rule.rejection(update) is None
        model.version += rule.receive(model, update)
        event = (now_s + float(times[node]), NODES + number, node, own(node).clone(), model.version)
        heapq.heappush(events, event)
        if number % every == 0:
            scores = [accuracy(own(k), test[GROUPS[k]]) for k in range(NODES)]
            outcome.updates.append(number)
            outcome.mean.append(float(np.mean(scores)))
            outcome.worst.append(min(scores))
    return outcome


def accuracy(weights: torch.Tensor, examples: Examples) -> float:
    """Return the share of examples that a model gets right."""
    pixels, labels = examples
    return float(((pixels @ weights.view(-1, CLASSES)).argmax(1) == labels).float().mean())


def tuned(make: Callable[[], Rule], kind: str, rates: tuple[float, ...], num_updates: int) -> float:
    """Return the rate with the best final mean accuracy, on a seed that is not measured."""
    return max(rates, key=lambda r: asynchronous(make(), kind, r, 1000, num_updates).mean[-1])


@cache  # a figure shows what a table says
def study(kind: str, seeds: int, rates: tuple[float, ...], num_updates: int) -> tuple[dict, dict]:
    """Return, per method, accuracies at the end and how well groups are found; and the curves."""
    rows, curves = {}, {}
    for name, make in RULES.items():
        rate = tuned(make, kind, rates, num_updates)
        runs = [asynchronous(make(), kind, rate, seed, num_updates) for seed in range(1, seeds + 1)]
        rows[name] = {
            "mean_accuracy": [round(run.mean[-1], 4) for run in runs],
            "worst_accuracy": [round(run.worst[-1], 4) for run in runs],
            "best_mean_accuracy": [round(max(run.mean), 4) for run in runs],
            "learning_rate": rate,
        }
        if "learned" in name:
            found = [run.rule.mixing.groups.tolist() for run in runs]
            rows[name]["adjusted_rand_index"] = [adjusted_rand_index(g, GROUPS) for g in found]
        curves[name] = runs[0]
    return rows, curves
