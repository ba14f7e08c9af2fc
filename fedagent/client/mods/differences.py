"""The sum that a mod sends which answers with a difference."""

import numpy as np

from fedagent.client.mods.memory import Arrays


def moved(dispatched: Arrays, start: Arrays, trained: Arrays) -> Arrays:
    """Return dispatched + (trained - start) for floating arrays, `trained` for the others."""
    changes = changes_of(start, trained)
    return {
        name: (dispatched[name] + changes[name]).astype(y.dtype) if name in changes else y
        for name, y in trained.items()
    }


def changes_of(start: Arrays, trained: Arrays) -> Arrays:
    """Return trained - start of the floating arrays; 0 where `start` is no number, as in masks."""
    changes = {}
    for name, y in trained.items():
        if y.dtype.kind in "fc":
            x, is_number = start[name], np.isfinite(start[name])
            changes[name] = (
                y - x
                if is_number.all()
                else np.subtract(y, x, out=np.zeros_like(y), where=is_number)
            )
    return changes


def is_like(trained: Arrays, dispatched: Arrays) -> bool:
    """Whether a reply holds nothing but arrays of the dispatched ones' names and shapes."""
    return bool(trained) and all(
        name in dispatched
        and array.shape == dispatched[name].shape
        and array.dtype.kind == dispatched[name].dtype.kind
        for name, array in trained.items()
    )
