r"""Updates that are unlike those of the same lateness.

    group of an update: g = floor(log2(1 + tau))
    mu_g <- mu_g + (Delta - mu_g) / min(n_g, memory)      over what was taken
    score = |Delta - mu_g| / (mean distance in the group)
    the newest scores, one a node, in three clusters; refused in the highest, if that is apart:
    its centre above `gap` times the middle one

After AsyncFilter: Kang, Li, "AsyncFilter: Detecting Poisoning Attacks in Asynchronous Federated
Learning" (Middleware 2024), of which the abstract and a summary were read: comparing with updates
of equal staleness, and three clusters, of which the middle ones are late but honest, are theirs;
the numbers are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedagent.admission.filters.base import Filter, Votes, refused
from fedagent.errors import require
from fedagent.model import FlatModel
from fedagent.rules.lengths import products
from fedagent.update import Rejection, Update

_ROUNDS = 20  # of k-means in one dimension


@dataclass
class _Group:
    mean: torch.Tensor
    distance: float = 0.0
    count: int = 1


class StalenessGroups(Filter):
    """Refuses the outliers among updates of about the same staleness.

    Parameters
    ----------
    gap : >= 1, how far the highest cluster must be above the middle one to be refused.
    memory : updates that a group's mean goes back, >= 2.
    patience : nodes that must have been heard before anything is refused, >= 3.
    """

    def __init__(self, gap: float = 2.0, memory: int = 50, patience: int = 10) -> None:
        require(gap >= 1, f"StalenessGroups: gap={gap} must be at least 1.")
        require(memory >= 2, f"StalenessGroups: memory={memory} must be at least 2.")
        require(patience >= 3, f"StalenessGroups: patience={patience} must be at least 3.")
        self.gap, self.memory, self.patience = gap, memory, patience
        self._groups: dict[int, _Group] = {}
        self._scores = Votes()

    def judge(self, update: Update, model: FlatModel) -> Update | Rejection:
        """Compare the update with those of its group."""
        number = int(np.log2(1 + update.staleness))
        group = self._groups.get(number)
        if group is None:
            self._groups[number] = _Group(update.delta.clone())
            return update
        length2, both, mean2 = products(update.delta, group.mean)
        distance = max(0.0, length2 - 2 * both + mean2) ** 0.5
        score = distance / group.distance if group.distance else 1.0
        self._scores.cast(update.node_id, score)
        if len(self._scores) >= self.patience and score >= self._threshold():
            detail = f"it is {score:.2f} times as far from updates as late as it as those are"
            return refused("unlike-its-group", detail)
        group.count += 1
        share = 1.0 / min(group.count, self.memory)
        group.mean.lerp_(update.delta, share)
        group.distance += (distance - group.distance) * max(share, 1.0 / max(1, group.count - 1))
        return update

    def _threshold(self) -> float:
        """Return the least score that is refused; infinity if no cluster is apart."""
        values = np.sort(self._scores.values())
        centres = np.quantile(values, [0.0, 0.5, 1.0])
        labels = np.zeros(len(values), int)
        for _ in range(_ROUNDS):
            labels = np.abs(values[:, None] - centres).argmin(1)
            for k in range(3):
                if (labels == k).any():
                    centres[k] = values[labels == k].mean()
        highest = values[labels == 2]
        is_apart = len(highest) and centres[2] > self.gap * centres[1]
        is_minority = 2 * len(highest) < len(values)
        return float(highest.min()) if is_apart and is_minority else np.inf

    def state_dict(self) -> dict[str, Any]:
        """Return the groups and the scores."""
        groups = {
            str(n): {"mean": g.mean.clone(), "distance": g.distance, "count": g.count}
            for n, g in self._groups.items()
        }
        return {"groups": groups, "scores": self._scores.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._groups = {
            int(n): _Group(g["mean"].clone(), float(g["distance"]), int(g["count"]))
            for n, g in state["groups"].items()
        }
        self._scores.load_state_dict(state["scores"])
