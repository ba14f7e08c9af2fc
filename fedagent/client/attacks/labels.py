"""An attacker whose labels are wrong: its training is honest, its data is not."""

from collections.abc import Iterator
from copy import copy
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any

import torch

from fedagent.client.attacks.attack import Attack
from fedagent.client.spec import ClientSpec
from fedagent.errors import Interval, require
from fedagent.tasks.task import Batch, Task


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Train with the label C - 1 - y for y, of C classes.

    It changes the task, not a reply: `on` is how a client gets it. Batches must be pairs of inputs
    and integer labels, as those of `clients.vision` are.

    Parameters
    ----------
    attackers : see `Attack`.
    num_classes : C >= 2.
    """

    _: KW_ONLY
    num_classes: Annotated[int, Interval("[2, inf)")] = 10

    def on(self, client: ClientSpec) -> ClientSpec:
        """Return a client whose task flips the labels of attackers."""
        return replace(client, task=self._flipped(client.task))

    def _flipped(self, task: Task) -> Task:
        flipped: Any = copy(task)

        def batches(partition_id: int | None, batch_size: int) -> Iterator[Batch]:
            honest = task.batches(partition_id, batch_size)
            lies = partition_id in self.attackers.partitions
            return map(self._flip, honest) if lies else honest

        vars(flipped)["batches"] = batches
        return flipped  # type: ignore[no-any-return]

    def _flip(self, batch: Batch) -> Batch:
        is_pair = isinstance(batch, tuple) and len(batch) == 2
        labels = batch[1] if is_pair else None
        require(
            isinstance(labels, torch.Tensor) and not labels.is_floating_point(),
            "LabelFlip: the task's batches are no pairs of inputs and integer labels, so there is "
            "no label to flip; take another attack.",
        )
        return batch[0], self.num_classes - 1 - batch[1]
