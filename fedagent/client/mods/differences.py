"""The sum that a mod sends which answers with a difference."""

from fedagent.client.mods.memory import Arrays


def moved(dispatched: Arrays, start: Arrays, trained: Arrays) -> Arrays:
    """Return dispatched + (trained - start) for floating arrays, `trained` for the others."""
    return {
        name: (dispatched[name] + (y - start[name])).astype(y.dtype) if y.dtype.kind == "f" else y
        for name, y in trained.items()
    }
