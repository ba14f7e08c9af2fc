"""How good a model is: in eval mode, batch by batch, over all nodes and for the worst of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fedagent.stopping import Metric

Metrics = dict[str, float]
"""Name to value; ``num-examples`` says how many examples the others were computed on."""

Weights = Literal["examples", "equal"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode and record no gradients; restore its mode at the end."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def outputs(model: nn.Module, inputs: Iterable[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Return what `model` says to batches of inputs, one after the other, on the CPU.

    Parameters
    ----------
    model : network on `device`.
    inputs : batches (B, ...), at least one.
    device : where the model computes.
    """
    return torch.cat([model(batch.to(device)) for batch in inputs]).cpu()


def classification(logits: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """Return accuracy, mean cross-entropy as ``loss``, and ``num-examples``.

    Parameters
    ----------
    logits : (N, K) of the K classes, N >= 1.
    labels : (N,) int64.
    """
    return {
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
        "loss": float(F.cross_entropy(logits, labels)),
        "num-examples": float(len(labels)),
    }


def over_nodes(
    parts: Sequence[Mapping[str, float]], metric: Metric, weights: Weights = "examples"
) -> Metrics:
    """Return the nodes' metrics as one: means, the worst node, and all examples together.

    Parameters
    ----------
    parts : metrics of each node, at least one. What some nodes lack is left out.
    metric : the one whose worst value over the nodes is added as ``NAME-worst``.
    weights : of a node in the means: its examples, or the same for all.
    """
    counts = [part["num-examples"] for part in parts]
    shared = set.intersection(*map(set, parts)) - {"num-examples"}
    means = {
        name: fmean([part[name] for part in parts], counts if weights == "examples" else None)
        for name in sorted(shared)
    }
    if metric.name in means:
        worst = np.min if metric.mode == "max" else np.max  # of which NaN is one, wherever it is
        means[f"{metric.name}-worst"] = float(worst([part[metric.name] for part in parts]))
    return means | {"num-examples": sum(counts)}
