"""The contract of a scheduler: which node works next, and how much.

Every job that `assign` or `plan` gave out ends in exactly one call:

    observe   the node did it: a reply came that admission took for an update, whether or not the
              rule then had a use for it (too stale, say)
    lost      it came to nothing: not sent, failed, refused by admission, dropped by the strategy,
              or overdue; what comes after that counts no more
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedagent.errors import require
from fedagent.nodes.idle import IdleNodes
from fedagent.update import Group


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job for one idle node; None leaves B_k, M_k or the batch size to the ClientApp.

    Of a scheduler that forms groups, `group` is told to the rule with the job's update.
    """

    node_id: int
    local_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """A job that was done: what a scheduler may learn from.

    Attributes
    ----------
    node_id : the node that did it.
    local_steps : B_k that was asked for, or None when the ClientApp decided.
    duration_s : seconds from dispatch to reply, on the run's clock.
    staleness : tau, versions published in between.
    num_examples : the weight the client reported, > 0.
    metrics : the client's metrics, which no check vouches for.
    num_bytes : serialised model bytes of the job and its update together.
    is_used : whether the rule got the update, which a filter or a cap may have refused.
    """

    node_id: int
    local_steps: int | None
    duration_s: float
    staleness: int = 0
    num_examples: float = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    num_bytes: int = 0
    is_used: bool = True


class Scheduler(ABC):
    """Chooses idle nodes and sets B_k and M_k.

    Parameters
    ----------
    local_steps : B_k >= 1, local steps per dispatch; None leaves it to the ClientApp.
    learning_rate : M_k > 0, the client's step size; None leaves it to the ClientApp.
    seed : of the generator that belongs to this scheduler.
    """

    def __init__(
        self, local_steps: int | None = None, learning_rate: float | None = None, seed: int = 0
    ) -> None:
        require(
            local_steps is None or local_steps >= 1,
            f"local_steps={local_steps} must be at least 1.",
        )
        require(
            learning_rate is None or learning_rate > 0,
            f"learning_rate={learning_rate} must be positive.",
        )
        self.local_steps = local_steps
        self.learning_rate = learning_rate
        self.generator = random.Random(seed)

    @property
    def allows_prefetch(self) -> bool:
        """Whether a node may be planned a job before its last one was observed."""
        return True

    @property
    def forms_groups(self) -> bool:
        """Whether jobs belong to groups, for rules that aggregate by them."""
        return False

    @abstractmethod
    def choose(self, idle: IdleNodes) -> int:
        """Return the idle node that works next; there is at least one."""

    def assign(self, idle: IdleNodes, now_s: float) -> Assignment | None:
        """Return the next job, or None to leave a free slot empty for now."""
        return self.plan(self.choose(idle), now_s) if idle else None

    def plan(self, node_id: int, now_s: float) -> Assignment:
        """Return the job of the node that was chosen."""
        return Assignment(node_id, self.local_steps, self.learning_rate)

    def may_queue(self, node_id: int, idle: IdleNodes) -> bool:
        """Return whether a node at work may be planned a job more; `idle` are the idle ones."""
        return True

    def observe(self, observation: Observation) -> None:
        """Learn from a job that was done; the end of that job."""

    def lost(self, node_id: int) -> None:
        """Learn that a node's job came to nothing; the end of that job."""

    def next_due_s(self) -> float:
        """Return when a slot left empty should be offered again, if nothing happens before."""
        return math.inf

    def state_dict(self) -> dict[str, Any]:
        """Return what the scheduler remembers."""
        version, internal, gauss = self.generator.getstate()
        return {"generator": [version, list(internal), gauss]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        version, internal, gauss = state["generator"]
        self.generator.setstate((version, tuple(internal), gauss))
