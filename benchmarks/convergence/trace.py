"""What a run is given and what it shows, whatever loop makes it."""

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fedagent.statistics import Statistics


class Problem(Protocol):
    """What nodes learn. P = number of parameters.

    Attributes
    ----------
    num_nodes : K.
    weights : (K,) num-examples of every node.
    target : the score to reach.
    """

    num_nodes: int
    weights: np.ndarray
    target: float

    def initial(self, seed: int) -> np.ndarray:
        """Return the (P,) model before training."""

    def arrays(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays that a (P,) model is made of, in their order: views of it."""

    def work(
        self, node: int, start: np.ndarray, steps: int, rate: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Return Delta, (P,): what `steps` local steps of size `rate` change."""

    def score(self, vector: np.ndarray) -> float:
        """Return how good a (P,) model is; more is better."""


@dataclass(frozen=True)
class Budget:
    """When a run ends; the first that holds does it."""

    updates: int
    seconds: float = math.inf
    at_target: bool = False
    score_every: int = 1  # updates


@dataclass
class Trace:
    """What a run showed.

    Attributes
    ----------
    curve : (seconds, updates, score) whenever the score was computed.
    vector : (P,) the last model; not finite if the run diverged.
    statistics : seconds, updates, staleness and waste, as the proxy counts them.
    """

    target: float
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    vector: np.ndarray = field(default_factory=lambda: np.zeros(0))
    statistics: Statistics = field(default_factory=Statistics)

    def add(self, problem: Problem, vector: np.ndarray) -> bool:
        """Score the model; return False if there is no point in going on."""
        if not np.isfinite(vector).all():
            self.curve.append((self.statistics.now_s, self.statistics.num_updates, -math.inf))
            return False
        score = problem.score(vector)
        self.curve.append((self.statistics.now_s, self.statistics.num_updates, score))
        return True

    @property
    def is_at_target(self) -> bool:
        """Whether the last score is good enough."""
        return bool(self.curve) and self.curve[-1][2] >= self.target

    def _reached(self, column: int) -> float:
        return next((row[column] for row in self.curve if row[2] >= self.target), math.inf)

    @property
    def time_to_target_s(self) -> float:
        """Virtual seconds until the target was reached; infinity if it was not."""
        return self._reached(0)

    @property
    def updates_to_target(self) -> float:
        """Updates until the target was reached; infinity if it was not."""
        return self._reached(1)

    @property
    def final_score(self) -> float:
        """The last score."""
        return self.curve[-1][2]
