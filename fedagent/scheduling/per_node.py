"""Settings by device class: how much a node does, how fast it learns, how far ahead it is asked.

A scheduler decides which node works next. What it leaves to the defaults can differ between classes
of devices, described as regions are: by a list, an attribute, or a measure between limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedagent.errors import require
from fedagent.nodes.geography import Attributes, Regions
from fedagent.scheduling.base import Assignment


@dataclass(frozen=True)
class NodeSettings:
    """What is particular to a class of nodes; None keeps what everybody else has.

    Parameters
    ----------
    local_steps : B_k >= 1.
    learning_rate : M_k > 0.
    batch_size : examples per batch, >= 1.
    prefetch : jobs queued at the node beyond the one it works on, 0 to 3.
    """

    local_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    prefetch: int | None = None

    def __post_init__(self) -> None:
        steps, rate, size = self.local_steps, self.learning_rate, self.batch_size
        require(steps is None or steps >= 1, f"local_steps={steps} must be at least 1.")
        require(rate is None or rate > 0, f"learning_rate={rate} must be positive.")
        require(size is None or size >= 1, f"batch_size={size} must be at least 1.")
        require_prefetch(self.prefetch or 0)


@dataclass(frozen=True)
class PerNode:
    """Settings of every class.

    Parameters
    ----------
    classes : which class a node is in, such as ``Listed([[0, 1], [2, 3]])`` by partition id, or
        ``ByMeasure([2.0], key="seconds-per-step")`` for fast and slow ones.
    settings : of class 0, of class 1, ...
    """

    classes: Regions
    settings: Sequence[NodeSettings]

    def __post_init__(self) -> None:
        require(
            len(self.settings) == self.classes.count,
            f"PerNode: {len(self.settings)} settings for {self.classes.count} classes; give every "
            "class one, an empty one to change nothing.",
        )

    def of(self, node_id: int, attributes: Attributes) -> NodeSettings:
        """Return what is particular to a node: nothing, if it is in no class."""
        number = self.classes.of(node_id, attributes)
        return NodeSettings() if number is None else self.settings[number]

    def adapt(self, job: Assignment, attributes: Attributes) -> Assignment:
        """Return `job` with the B_k, M_k and batch size of its node's class."""
        own = self.of(job.node_id, attributes)
        return replace(
            job,
            local_steps=own.local_steps or job.local_steps,
            learning_rate=own.learning_rate or job.learning_rate,
            batch_size=own.batch_size or job.batch_size,
        )


def require_prefetch(prefetch: int) -> None:
    """Raise a ``ConfigurationError`` unless `prefetch` lies between 0 and 3."""
    require(
        0 <= prefetch <= 3,
        f"prefetch={prefetch} must lie between 0 and 3: one or two jobs hide a link, and every job "
        "that waits at a node starts from an older model.",
    )
