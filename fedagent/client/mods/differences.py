"""The sum that a mod sends which answers with a difference."""

from fedagent.client.mods.memory import Arrays


def moved(dispatched: Arrays, start: Arrays, trained: Arrays) -> Arrays:
    """Return dispatched + (trained - start) for floating arrays, `trained` for the others."""
    return {
        name: (dispatched[name] + (y - start[name])).astype(y.dtype) if y.dtype.kind == "f" else y
        for name, y in trained.items()
    }


def is_like(trained: Arrays, dispatched: Arrays) -> bool:
    """Whether a reply holds nothing but arrays of the dispatched ones' names and shapes."""
    return bool(trained) and all(
        name in dispatched
        and array.shape == dispatched[name].shape
        and array.dtype.kind == dispatched[name].dtype.kind
        for name, array in trained.items()
    )
