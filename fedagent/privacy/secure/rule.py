r"""Buffers of updates that nobody sees: a rule gets the mean of K, after masks have cancelled.

    on each arrival:    a node is ready; it keeps its update
    on the K-th:        the K nodes are admitted to one sum, and nobody waits for them
    when that is done:  the inner rule receives one update, (sum of the survivors') / K, and flushes

The divisor is K also where members vanish, so no node weighs more for it. All updates weigh the
same: neither examples nor lateness count. The update's staleness is the largest of the members'.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple

import numpy as np
import torch

from fedagent import keys
from fedagent.errors import require
from fedagent.model import FlatModel, blocks
from fedagent.privacy.secure.gathering import SumEnd
from fedagent.privacy.secure.stages import SMALLEST, Stage
from fedagent.rules.base import Rule
from fedagent.rules.wrapper import RuleWrapper
from fedagent.stopping import RunEnd
from fedagent.update import Outcome, Rejection, Update

_SERVER = -1  # whose update the inner rule receives
VANISHED = "vanished"
"""Why an update was lost whose node did not answer until the sum was done."""


class Ready(NamedTuple):
    """A node that keeps an update: the 64 bytes of its public keys, and how late it was."""

    keys: bytes
    staleness: int


class SecureSums(RuleWrapper):
    """`inner`, which sees nothing but means of buffers.

    A node gets no job from its update to the end of the sum that this is in.

    Parameters
    ----------
    inner : a rule with a buffer of K updates, which all weigh the same.

    Raises
    ------
    ConfigurationError
        If the rule goes by single updates.
    """

    def __init__(self, inner: Rule) -> None:
        super().__init__(inner)
        inner.weigh_equally()
        require(
            inner.updates_per_version is None or inner.updates_per_version >= SMALLEST,
            _too_small(inner.updates_per_version),
        )
        require(
            not inner.needs_clock,
            "secure: masks cancel among as many nodes as were admitted together, so a buffer needs "
            "a size: set buffer_size, and leave publish_every_s out.",
        )
        self._waiting: dict[int, Ready] = {}
        self._admitted: dict[int, int] = {}  # staleness by node
        self._outcomes: list[SumEnd] = []
        self._lost: dict[str, int] = {}
        self._withdrawn: dict[int, float] = {}

    # --- what a run asks for ------------------------------------------------------------------

    @property
    def can_admit(self) -> bool:
        """Whether K nodes are ready."""
        size = self.inner.updates_per_version
        return size is not None and len(self._waiting) >= size

    def take_members(self) -> dict[int, bytes]:
        """Return the keys of K nodes that are admitted to a sum, those that wait longest."""
        first = list(self._waiting)[: self.inner.updates_per_version]
        members = {node_id: self._waiting.pop(node_id) for node_id in first}
        self._admitted |= {node_id: ready.staleness for node_id, ready in members.items()}
        return {node_id: ready.keys for node_id, ready in members.items()}

    def settle(self, outcome: SumEnd) -> None:
        """Take in how a sum ended; `advance` does the rest."""
        for node_id in outcome.members:
            if node_id in self._waiting:  # of a run that goes on, which asks nobody again
                self._admitted[node_id] = self._waiting.pop(node_id).staleness
        self._outcomes.append(outcome)

    def give_up(self, reason: str) -> None:
        """Forget all updates that nodes keep: they will never come."""
        done = {node_id for outcome in self._outcomes for node_id in outcome.members}
        kept, self._waiting = (*self._waiting, *(self._admitted.keys() - done)), {}
        self._forget(kept, reason)

    # --- as a rule ----------------------------------------------------------------------------

    def on_start(self, model: FlatModel) -> None:
        """Refuse floating arrays that are carried: a node does not know which they are."""
        arrays = [s for s in model.spec.arrays if not s.is_averaged]
        floating = [s.name for s in arrays if np.dtype(s.dtype).kind in "fc"]
        require(
            not floating,
            f"secure: {', '.join(floating[:3])} would be carried, and a sum holds all floating "
            "arrays. Leave them out of carried=, or out of the model.",
        )
        super().on_start(model)

    def begin_round(self, num_updates: int) -> None:
        """Refuse a first round that is too small for a buffer of its size.

        Where nodes have left, sums wait for as many as hide each other.
        """
        is_first = self.inner.updates_per_version is None
        super().begin_round(num_updates)
        size = self.inner.updates_per_version
        if size is not None and size < SMALLEST:
            require(not is_first, _too_small(size))
            super().begin_round(SMALLEST)

    def rejection(self, update: Update) -> Rejection | None:
        """Refuse a second update of a node that keeps one."""
        if update.node_id in self.barred:
            detail = "the node keeps an update already"
            return Rejection(Outcome.REJECTED, "secure", detail, blames_node=False)
        return self.inner.rejection(update)

    def receive(self, model: FlatModel, update: Update) -> bool:
        """Note that a node is ready."""
        self._waiting[update.node_id] = Ready(update.sealed, update.staleness)
        return False

    def next_due_s(self) -> float:
        """Return 0 as long as a sum is there."""
        return 0.0 if self._outcomes else self.inner.next_due_s()

    def advance(self, model: FlatModel, now_s: float) -> bool:
        """Let the inner rule have the mean of the sum that has been there longest."""
        if not self._outcomes:
            return self.inner.advance(model, now_s)
        outcome = self._outcomes.pop(0)
        tau = max(self._admitted[node_id] for node_id in outcome.members)
        if outcome.total is None:
            self._forget(outcome.members, outcome.reason)
            return False
        self._forget(set(outcome.members) - set(outcome.survivors), VANISHED)
        self._forget(outcome.survivors)
        mean = torch.from_numpy(outcome.total / len(outcome.members)).to(model.vector.dtype)
        largest = max((float(part.abs().max()) for (part,) in blocks(mean)), default=0.0)
        update = Update(_SERVER, mean, model.vector.clone(), tau, largest_change=largest)
        is_published = self.inner.receive(model, update)
        return self.inner.flush(model) or is_published

    def flush(self, model: FlatModel) -> bool:
        """Let the inner rule have all sums that are there."""
        has_moved = False
        while self._outcomes:
            has_moved = self.advance(model, math.inf) or has_moved
        return has_moved

    def _forget(self, members: Iterable[int], reason: str = "") -> None:
        """Let nodes work again; with a `reason`, what they kept is lost."""
        for node_id in members:
            self._admitted.pop(node_id, None)
            if reason:
                self._lost[reason] = self._lost.get(reason, 0) + 1
                self._withdrawn[node_id] = self._withdrawn.get(node_id, 0.0) + 1.0

    def discount(self, staleness: int) -> float:
        """Return 1."""
        return 1.0

    def influence(self, update: Update) -> float:
        """Return 1."""
        return 1.0

    def job_config(self, node_id: int) -> Mapping[str, int]:
        """Tell the node to keep what it will have trained."""
        return {**self.inner.job_config(node_id), keys.SECURE: int(Stage.KEEP)}

    @property
    def is_one_per_node(self) -> bool:
        """Yes."""
        return True

    @property
    def allows_prefetch(self) -> bool:
        """No: a node keeps one update."""
        return False

    @property
    def allows_clock(self) -> bool:
        """No: a sum is published when it is there."""
        return False

    @property
    def allows_filters(self) -> bool:
        """No: there is nothing to look at."""
        return False

    @property
    def barred(self) -> Set[int]:
        """Nodes that keep an update."""
        return self._waiting.keys() | self._admitted.keys()

    @property
    def end_when_all_are_barred(self) -> RunEnd:
        """Stalled: there are too few nodes for one K."""
        return RunEnd(
            "stalled",
            f"{len(self._waiting)} nodes wait for a sum of {self.inner.updates_per_version} updates"
            " that nobody else may complete",
        )

    @property
    def pending(self) -> int:
        """Updates that their nodes keep."""
        return len(self._waiting) + len(self._admitted)

    @property
    def lost(self) -> Mapping[str, int]:
        """What the inner rule has lost, and updates that came into no sum."""
        return {**self.inner.lost, **self._lost}

    def take_withdrawn(self) -> Mapping[int, float]:
        """Return the influence of what was lost."""
        taken, self._withdrawn = self._withdrawn, {}
        return taken

    def remember(self) -> Callable[[], None]:
        """Remember the inner rule only: nodes keep what they keep, whatever a version was."""
        return self.inner.remember()

    def state_dict(self) -> dict[str, Any]:
        """Return the inner rule's state, which nodes are ready or admitted, and sums."""
        return {
            "inner": self.inner.state_dict(),
            "waiting": dict(self._waiting),
            "admitted": dict(self._admitted),
            "outcomes": list(self._outcomes),
            "lost": dict(self._lost),
            "withdrawn": dict(self._withdrawn),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.inner.load_state_dict(state["inner"])
        self._waiting, self._admitted = dict(state["waiting"]), dict(state["admitted"])
        self._outcomes, self._lost = list(state["outcomes"]), dict(state["lost"])
        self._withdrawn = dict(state["withdrawn"])


def _too_small(size: int | None) -> str:
    return (
        f"secure: a buffer of {size} updates hides none of them from the others' nodes: set "
        f"buffer_size to at least {SMALLEST}, better 10."
    )
