"""Arrays of which only the changed rows travel: what a client sends, and what the proxy reads.

Under an array's name are the changed rows; under that name with ``keys.ROWS`` behind it is which
they are, int32 and ascending.
"""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array

from fedagent import keys
from fedagent.arrays import ArraySpec, NDArray
from fedagent.wire.npy import MalformedArrayError, read_array


def changed_rows(name: str, dispatched: NDArray, trained: NDArray) -> dict[str, NDArray]:
    """Return what stands for `trained` in a reply: the rows that differ, where that is less.

    NaN counts as a change. Integers, whose counts are carried, numbers alone and arrays without any
    travel whole.
    """
    if trained.dtype.kind != "f" or trained.ndim == 0 or trained.size == 0:
        return {name: trained}
    is_changed = (trained != dispatched).reshape(len(trained), -1).any(axis=1)
    rows = np.flatnonzero(is_changed).astype(np.int32)
    changed = trained[rows]
    if changed.nbytes + rows.nbytes >= trained.nbytes:
        return {name: trained}
    return {name: changed, name + keys.ROWS: rows}


def read_rows(record: Mapping[str, Array], spec: ArraySpec, dispatched: NDArray) -> NDArray:
    """Read an array from an untrusted source that sends the rows it has changed, and which.

    Parameters
    ----------
    record : what came; it holds ``spec.name`` and that with ``keys.ROWS`` behind it.
    dispatched : the array whose rows are replaced, of the shape and dtype of `spec`.

    Raises
    ------
    MalformedArrayError
        With a reason of `read_array`, or ``rows`` unless they ascend and are rows of the array.
    """
    name = spec.name + keys.ROWS
    count = record[name].shape[0] if len(record[name].shape) == 1 else -1
    if not spec.shape or not 0 <= count <= spec.shape[0]:
        raise MalformedArrayError(
            "rows", f"{name!r} is {tuple(record[name].shape)}, but {spec.name!r} is {spec.shape}"
        )
    rows = read_array(record[name], ArraySpec(name, (count,), "int32")).astype(np.int64)
    if count and (rows[0] < 0 or rows[-1] >= spec.shape[0] or (np.diff(rows) <= 0).any()):
        raise MalformedArrayError(
            "rows", f"{name!r} must ascend, without repetition, within [0, {spec.shape[0]})"
        )
    part = ArraySpec(spec.name, (count, *spec.shape[1:]), spec.dtype)
    array = dispatched.copy()
    array[rows] = read_array(record[spec.name], part)
    return array
