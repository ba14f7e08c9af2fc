"""What mods share that answer with a difference: a memory of models, and the sum that is sent."""

from collections.abc import Sequence

from flwr.app import Context

from fedagent.arrays import NDArray
from fedagent.wire.records import from_record

Arrays = dict[str, NDArray]


def recall(context: Context, prefix: str, names: Sequence[str]) -> list[Arrays]:
    """Return what the node keeps under `prefix` and these names, and forget all else under it.

    Names under which nothing is kept are left out.
    """
    wanted = [prefix + name for name in names]
    for key in [k for k in context.state if k.startswith(prefix) and k not in wanted]:
        del context.state[key]
    return [from_record(context.state.array_records[k]) for k in wanted if k in context.state]


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
