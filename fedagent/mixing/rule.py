r"""The collaborative model: K nodes, K models, and weights c_ik with which they share updates.

Shape legend: K nodes, P parameters, B = `buffer_size`. theta_k: the model of node k. Delta_i: what
node i's local steps did to the theta_i it was sent. After every B updates, one product (a sweep):

    theta_k <- theta_k + w_kk Delta_k + sum_{i != k} w_ik [Delta_i + gamma (theta_i_sent - theta_k)]

    w_ik = c_ik s(tau_ik),   w_kk = c_kk + sum_{i != k} (c_ik - w_ik)   (see `remainder`)
    tau_ik = how often theta_k changed since the job behind Delta_i was sent

gamma = `consensus`. With gamma = 0, s = 1 and B = K equal nodes this is

    theta_k(t+1) = theta_k(t) + Delta_k(t+1),    Delta_k(t+1) = sum_i c_ik Delta_i(t)

(with Delta = -M grad L a descent): what the others computed at t arrives at t+1. Updates alone
never bring models together that have come apart. gamma = 1 mixes whole models,
theta_k <- sum_i c_ik (theta_i + Delta_i): decentralised SGD (Lian et al., arXiv 1705.09056;
asynchronously arXiv 1710.06952), in which distances fall with the second eigenvalue of C.

With B = 1 every arrival is a sweep of its own. The published model is the mean of the theta_k.

Memory: (K + 2 B) P floats, 2 B P more if gamma > 0. Time: 2 P flops per neighbour of
a sender: a sparse product that touches the rows of the neighbours only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedagent import keys
from fedagent.errors import require
from fedagent.mixing.history import ChangeLog
from fedagent.mixing.matrix import Floats, Indices, MixingMatrix
from fedagent.mixing.node_index import NodeIndex
from fedagent.mixing.remainder import Remainders
from fedagent.mixing.weights import Weights
from fedagent.model import FlatModel
from fedagent.rules.base import Rule
from fedagent.rules.staleness import Staleness, polynomial, validated
from fedagent.update import Outcome, Rejection, Update


@dataclass(frozen=True)
class _Spread:
    """The weights of one sweep: A by rows, columns and values, and r.

    Row k is a receiving node; column b is the b-th update, column B + b the model it started from.
    """

    rows: Indices
    columns: Indices
    values: Floats
    received: Floats

    def matrix(self, num_rows: int, num_columns: int, dtype: torch.dtype) -> torch.Tensor:
        """Return A as a sparse tensor."""
        return torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([self.rows, self.columns])),
            torch.from_numpy(self.values).to(dtype),
            (num_rows, num_columns),
            check_invariants=False,  # or it warns that it does not check
        )

    def column_sums(self, num_columns: int) -> Floats:
        """Return the sum of each of A's columns."""
        sums = np.bincount(self.columns, weights=self.values, minlength=num_columns)
        return sums.astype(np.float64, copy=False)


class Mixing(Rule):
    """One model per node, and every update spread to the neighbours of its node.

    Parameters
    ----------
    mixing : c_ik; see `fedagent.mixing` for what there is.
    staleness : s(tau_ik), 1 for a fresh update.
    buffer_size : B >= 1, updates per sweep; K waits until as many updates as nodes are there, None
        leaves sweeping to the clock.
    consensus : gamma in [0, 1]: 0 shares updates, 1 whole models. Needs stochastic weights.
    """

    def __init__(
        self,
        mixing: Weights,
        staleness: Staleness = polynomial,
        buffer_size: int | None = 1,
        consensus: float = 0.0,
    ) -> None:
        require(
            buffer_size is None or buffer_size >= 1,
            f"Mixing: buffer_size={buffer_size} must be at least 1, or null to sweep by the clock.",
        )
        require(0.0 <= consensus <= 1.0, f"Mixing: consensus={consensus} must lie in [0, 1].")
        require(
            consensus == 0.0 or mixing.matrix.is_stochastic,
            f"Mixing: consensus={consensus} mixes models, whose weights must sum to one for every "
            "receiving node; set consensus=0 for raw weights.",
        )
        self.mixing = mixing
        self.staleness = validated(staleness)
        self.buffer_size = buffer_size
        self.consensus = consensus
        self.models: torch.Tensor | None = None  # (K, P), allocated with the first update
        self._places = NodeIndex(mixing.num_nodes)
        self._changes = ChangeLog(mixing.num_nodes)
        self._remainders = Remainders(mixing.num_nodes)
        self._matrix = mixing.matrix
        self._mean: torch.Tensor | None = None  # the (P,) model that is published
        self._num_sweeps = 0
        self._senders: list[int] = []
        self._base_versions: list[int] = []
        self._deltas: list[torch.Tensor] = []
        self._bases: list[torch.Tensor] = []  # only if they are needed: consensus > 0

    @property
    def pending(self) -> int:
        """Updates that wait for the next sweep."""
        return len(self._senders)

    @property
    def needs_clock(self) -> bool:
        """Whether a sweep has no size."""
        return self.buffer_size is None

    def on_start(self, model: FlatModel) -> None:
        """Keep hold of the mean, on which a node works that was never heard."""
        self._mean = model.vector

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse nodes that the mixing has no place for, or that name another's."""
        if self._places.of(update) is not None:
            return None
        named = update.metrics.get(keys.PARTITION_ID)
        if (holder := self._places.holder(named)) is not None:
            detail = (
                f"The place {named} belongs to node {holder}, which named it first. A device keeps "
                "its node id, and with it its place, if it authenticates itself with a key."
            )
            return Rejection(Outcome.REJECTED, "place-of-another", detail)
        detail = (
            "The mixing has no row for this node: build it for as many nodes as there are, and "
            "give every node a partition-id below that number."
        )
        return Rejection(Outcome.REJECTED, "no-place-in-mixing", detail)

    def model_for(self, node_id: int) -> torch.Tensor | None:
        """Return theta_k; a node that was never heard works on the mean."""
        place = self._places.get(node_id)
        return self._mean if place is None or self.models is None else self.models[place]

    def version_for(self, node_id: int) -> int:
        """Return the number of sweeps, which a clock publishes several at a time."""
        return self._num_sweeps

    def metrics(self) -> dict[str, float]:
        """Return the consensus distance sqrt(mean_k |theta_k - mean|^2), and what was learned."""
        if self.models is None:
            return {}
        mean = self.models.mean(0)
        squares = [float(torch.dist(theta, mean)) ** 2 for theta in self.models]
        return {"consensus-distance": float(np.sqrt(np.mean(squares))), **self.mixing.metrics()}

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Keep the update of node i; the B-th is a sweep."""
        sender = self._places.of(update)
        assert sender is not None, "receive() of an update that rejection() refuses"
        if self.models is None:
            self.models = model.vector.repeat(self.mixing.num_nodes, 1)
        self.mixing.observe(sender, update.delta)
        self._senders.append(sender)
        self._base_versions.append(self._num_sweeps - update.staleness)
        self._deltas.append(update.delta)
        if self.consensus:
            self._bases.append(update.base.clone())
        model.carry(update.carried, update.staleness)
        is_full = self.buffer_size is not None and len(self._senders) >= self.buffer_size
        return is_full and self.flush(model)

    def flush(self, model: FlatModel) -> bool:
        """Sweep with the updates that are there."""
        if self.models is None or not self._senders:
            return False
        self._sweep(self.models, model)
        for kept in (self._senders, self._base_versions, self._deltas, self._bases):
            kept.clear()
        return True

    def _sweep(self, models: torch.Tensor, model: FlatModel) -> None:
        """Apply theta <- diag(1 - gamma r) theta + A S, where S holds the Delta_i and theta_i_sent.

        r_k is the sum of the w_ik with which node k takes in a theta_i_sent. The mean of all
        theta_k follows from the sums of A's columns.
        """
        spread, num_nodes = self._spread(), len(models)
        for node in np.flatnonzero(spread.received).tolist():
            loss = self.consensus * float(spread.received[node])
            model.vector.add_(models[node], alpha=-loss / num_nodes)
            models[node].mul_(1.0 - loss)
        sources = torch.stack([*self._deltas, *self._bases])
        models.addmm_(spread.matrix(num_nodes, len(sources), sources.dtype), sources)
        sums = torch.from_numpy(spread.column_sums(len(sources)))
        model.vector.addmv_(sources.T, sums.to(sources.dtype), alpha=1.0 / num_nodes)
        changed = np.unique(spread.rows[spread.values > 0])
        self._num_sweeps += 1
        self._changes.mark(changed.tolist(), self._num_sweeps)

    def _spread(self) -> "_Spread":
        """Return A and r. Of a node that sent twice only the newer model counts: r_k <= 1."""
        matrix = self._current_matrix()
        senders = np.array(self._senders)
        newest = {sender: b for b, sender in enumerate(self._senders)}
        received = np.zeros(matrix.num_nodes)
        entries = []
        for b, sender in enumerate(self._senders):
            k, c = matrix.neighbours(sender)
            w = c * self._freshness(k, self._base_versions[b])
            self._remainders.lose(sender, k, c - w)
            entries.append((k, np.full(len(k), b), w))
            if self.consensus and newest[sender] == b:
                entries.append((k, np.full(len(k), len(senders) + b), self.consensus * w))
                received[k] += w
        own = matrix.own[senders] + self._remainders.of[senders]
        entries.append((senders, np.arange(len(senders)), own))
        rows, columns, values = (np.concatenate(part) for part in zip(*entries, strict=True))
        return _Spread(rows, columns, values, received)

    def _freshness(self, nodes: Indices, base_version: int) -> Floats:
        """Return s(tau_ik) for the nodes k that receive an update of that base version."""
        ages = (self._changes.since(node, base_version) for node in nodes.tolist())
        return np.array([self.staleness(tau) for tau in ages], np.float64)

    def _current_matrix(self) -> MixingMatrix:
        """Return c_ik; of weights that have just been learned nothing is lost yet."""
        if self.mixing.matrix is not self._matrix:
            self._matrix = self.mixing.matrix
            self._remainders = Remainders(self._matrix.num_nodes)
        return self._matrix

    def state_dict(self) -> dict[str, Any]:
        """Return models, buffer, places, history, remainders and what was learned."""
        return {
            "models": None if self.models is None else self.models.clone(),
            "num_sweeps": self._num_sweeps,
            "senders": list(self._senders),
            "base_versions": list(self._base_versions),
            "deltas": [delta.clone() for delta in self._deltas],
            "bases": [base.clone() for base in self._bases],
            "places": self._places.state_dict(),
            "changes": self._changes.state_dict(),
            "remainders": self._remainders.state_dict(),
            "mixing": self.mixing.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.models = None if state["models"] is None else state["models"].clone()
        self._num_sweeps = int(state["num_sweeps"])
        self._senders = list(state["senders"])
        self._base_versions = list(state["base_versions"])
        self._deltas = [delta.clone() for delta in state["deltas"]]
        self._bases = [base.clone() for base in state["bases"]]
        self._places.load_state_dict(state["places"])
        self._changes.load_state_dict(state["changes"])
        self.mixing.load_state_dict(state["mixing"])
        self._matrix = self.mixing.matrix
        self._remainders.load_state_dict(state["remainders"])
