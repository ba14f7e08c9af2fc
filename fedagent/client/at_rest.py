"""What stays as it is while a node trains."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fedagent.tasks.task import Task


@contextmanager
def frozen(parameters: Iterable[torch.Tensor]) -> Iterator[None]:
    """Take parameters out of training for a while."""
    taken = [p for p in parameters if p.requires_grad]
    for parameter in taken:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in taken:
            parameter.requires_grad_(True)


@contextmanager
def at_rest(task: Task, model: nn.Module) -> Iterator[None]:
    """Let training leave what is at rest as it is, see `Task.shared`: parameters and buffers.

    Statistics of a normalisation move in training whatever requires a gradient. A process has one
    module for all its nodes and jobs, so what one job changed there would be the next one's.
    """
    held = model.state_dict(keep_vars=True)
    shared, others = task.split_state(held)
    moving = {id(t) for t in (*shared.values(), *(others[n] for n in others if task.is_private(n)))}
    resting = {name: t for name, t in others.items() if id(t) not in moving}  # tied: one tensor
    buffers = {n: t.clone() for n, t in resting.items() if not isinstance(t, nn.Parameter)}
    with frozen(resting.values()):
        try:
            yield
        finally:
            if buffers:
                model.load_state_dict(buffers, strict=False)
