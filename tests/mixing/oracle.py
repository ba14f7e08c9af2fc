"""The collaborative rule by its definition: dense matrices, entry by entry.

It counts staleness by comparing change counters with a copy taken at dispatch, where the rule
searches versions; it keeps all weights in a K x K table, where the rule keeps neighbours.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Job:
    """What a node was sent, and the oracle's and the real version's state at that moment."""

    node: int
    base: np.ndarray
    counters: np.ndarray
    version: int


class Oracle:
    """The definition, entry by entry."""

    def __init__(self, c, staleness, buffer_size, gamma, initial=(0.0, 0.0, 0.0)):
        self.c, self.s, self.buffer_size, self.gamma = c, staleness, buffer_size, gamma
        self.theta = np.tile(np.array(initial), (len(c), 1))
        self.lost = np.zeros_like(c)
        self.counters = np.zeros(len(c), int)
        self.buffer = []

    def arrive(self, job, delta):
        """Take one update in; return whether that made a sweep."""
        self.buffer.append((job, delta))
        return len(self.buffer) == self.buffer_size and self.sweep()

    def sweep(self):
        """Apply what is there, if anything is."""
        if not self.buffer:
            return False
        nodes, before = range(len(self.c)), self.theta.copy()
        weights = []
        for sent, _ in self.buffer:
            tau = self.counters - sent.counters
            w = np.array([self.c[sent.node, k] * self.s(int(tau[k])) for k in nodes])
            self.lost[sent.node] = self.c[sent.node] - w
            self.lost[sent.node, sent.node] = 0.0
            weights.append(w)
        changed = set()
        for number, ((sent, moved), w) in enumerate(zip(self.buffer, weights, strict=True)):
            newest = all(later.node != sent.node for later, _ in self.buffer[number + 1 :])
            for k in nodes:
                weight = w[k] if k != sent.node else self.c[k, k] + self.lost[:, k].sum()
                pull = self.gamma * (sent.base - before[k]) if newest and k != sent.node else 0.0
                self.theta[k] += weight * (moved + pull)
                if weight > 0:
                    changed.add(k)
        self.counters[list(changed)] += 1
        self.buffer.clear()
        return True
